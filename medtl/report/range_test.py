"""The page of a learning-rate range test."""

from collections.abc import Mapping
from typing import Any

from medtl.report import figures, page


def page_of(found: Mapping[str, Any], sentence: str, freeze: str, command: str) -> str:
  """Return the page as text; `found` holds rates, losses, means, steepest and tenth."""
  return (
    page.environment()
    .get_template('range_test.html.j2')
    .render(
      found=found, sentence=sentence, freeze=freeze, command=command, picture=figures.rates(found)
    )
  )

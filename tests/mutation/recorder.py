"""A pytest plugin that writes down which lines each test runs, and the CPU seconds that it takes.

`pytest -p tests.mutation.recorder` with MEDTL_REACH=FILE: {'seconds': {test: s}, 'lines': {path:
{line: [test, …]}}}. A line that runs while files are imported has '' among its tests.
"""

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import coverage
import pytest

_coverage = coverage.Coverage(data_file=None, source=['medtl'], config_file=False)
_seconds: dict[str, float] = {}


def pytest_configure() -> None:
  _coverage.start()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
  _coverage.switch_context(item.nodeid)
  begin = time.process_time()
  outcome = yield
  _seconds[item.nodeid] = time.process_time() - begin
  _coverage.switch_context('')
  return outcome


def pytest_sessionfinish() -> None:
  _coverage.stop()
  data = _coverage.get_data()
  lines = {
    str(Path(file).relative_to(Path.cwd())): data.contexts_by_lineno(file)
    for file in data.measured_files()
  }
  Path(os.environ['MEDTL_REACH']).write_text(json.dumps({'seconds': _seconds, 'lines': lines}))

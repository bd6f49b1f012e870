"""Pictures of a report as data URIs: SVG figures with real text, PNG of what the model saw."""

import base64
import contextlib
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from medtl.core.types import Predictions
from medtl.evaluation import curves, metrics, operating_points
from medtl.evaluation.summary import LABELS

# Okabe and Ito 2008, told apart by all
COLOURS = ('#0072B2', '#D55E00', '#009E73', '#CC79A7', '#E69F00', '#56B4E9', '#000000')
STYLES = ('-', '--', ':', '-.')
INK, FAINT = '#3d4852', '#c3cad1'
STYLE: Any = {
  'svg.fonttype': 'none',
  'svg.hashsalt': 'medtl',
  'font.size': 9.5,
  'font.family': 'sans-serif',
  'font.sans-serif': ['Helvetica Neue', 'Helvetica', 'Arial', 'Liberation Sans', 'DejaVu Sans'],
  'axes.spines.top': False,
  'axes.spines.right': False,
  'axes.edgecolor': FAINT,
  'axes.labelcolor': INK,
  'xtick.color': INK,
  'ytick.color': INK,
  'text.color': INK,
  'xtick.major.size': 0,
  'ytick.major.size': 0,
  'axes.grid': True,
  'axes.axisbelow': True,
  'grid.color': '#edf0f2',
  'grid.linewidth': 0.8,
  'text.parse_math': False,
  'legend.edgecolor': 'none',
  'legend.framealpha': 0.6,
  'legend.fontsize': 8.5,
  'lines.linewidth': 1.7,
}
DOT: Any = {
  'marker': 'o',
  'markersize': 6.5,
  'markeredgecolor': 'white',
  'markeredgewidth': 1.2,
  'clip_on': False,
}
DIAGONAL: Any = {'color': FAINT, 'linewidth': 1, 'linestyle': (0, (4, 4))}
SQUARE = (4.3, 3.9)  # inches
FEW = 5  # curves that leave room for their legend


def roc(test: Predictions, cut: np.ndarray, kind: str, classes: Sequence[str]) -> str:
  """Return ROC curves, every class against the rest, with the operating points that `cut` gives.

  `cut` are the thresholds, [k] or [n, k].
  """
  score, y = operating_points.columns(test, kind)
  truth = metrics.truth(score, y)
  areas = metrics.class_auroc(score, y)
  sensitivity = metrics.class_sensitivity(score - cut, y)
  false_rate = 1 - metrics.class_specificity(score - cut, y)
  names = classes[-score.shape[1] :]
  with _axes(_square(len(names))) as (figure, (axes,)):
    axes.plot([0, 1], [0, 1], **DIAGONAL)
    for i, (name, style) in enumerate(zip(names, _styles(), strict=False)):
      wrong, right, _ = curves.roc(score[:, i], truth[:, i])
      axes.plot(wrong, right, label=f'{name}  {areas[i]:.3f}', drawstyle='steps-post', **style)
      axes.plot(false_rate[i], sensitivity[i], color=style['color'], **DOT)
    _unit(axes, '1 − specificity', 'Sensitivity')
    _legend(figure, axes, 'AUROC', 'lower right')
    return svg(figure)


def precision_recall(test: Predictions, cut: np.ndarray, kind: str, classes: Sequence[str]) -> str:
  """Return precision-recall curves with the operating points that `cut` gives, see `roc`.

  A dotted line is at each class's share of the examples.
  """
  score, y = operating_points.columns(test, kind)
  truth = metrics.truth(score, y)
  reached = score >= cut
  areas = metrics.class_auprc(score, y)
  names = classes[-score.shape[1] :]
  with _axes(_square(len(names))) as (figure, (axes,)):
    for i, (name, style) in enumerate(zip(names, _styles(), strict=False)):
      has = truth[:, i]
      positive = reached[:, i]
      axes.axhline(has.mean(), color=style['color'], linewidth=0.8, linestyle=(0, (1, 3)))
      recall, precision = curves.precision_recall(score[:, i], has)
      axes.plot(recall, precision, label=f'{name}  {areas[i]:.3f}', **style)
      if positive.any() and has.any():
        sensitivity = (has & positive).sum() / has.sum()
        axes.plot(sensitivity, has[positive].mean(), color=style['color'], **DOT)
    _unit(axes, 'Recall (sensitivity)', 'Precision (positive predictive value)')
    _legend(figure, axes, 'AUPRC', 'lower left')
    return svg(figure)


def reliability(test: Predictions) -> str:
  """Return the share that came true against the probability that was given.

  Below stands how often each probability was given.
  """
  count, p, share = metrics.reliability(test.score, test.y)
  seen = count > 0
  edges = np.linspace(0, 1, metrics.BINS + 1)
  area = 16 + 110 * count[seen] / count.max()  # of a dot, in points²
  dot: Any = {'color': COLOURS[0], 'edgecolor': 'white', 'zorder': 3, 'clip_on': False}
  with _axes(SQUARE, (3.4, 1)) as (figure, (axes, below)):
    axes.plot([0, 1], [0, 1], **DIAGONAL)
    axes.vlines(p[seen], p[seen], share[seen], color=COLOURS[1], linewidth=1.6, alpha=0.7)
    axes.plot(p[seen], share[seen], '-', color=COLOURS[0], linewidth=1, alpha=0.5)
    axes.scatter(p[seen], share[seen], area, **dot)
    _unit(axes, '', 'Share that came true')
    axes.tick_params(labelbottom=False)
    below.bar(edges[:-1], count, np.diff(edges), align='edge', color=COLOURS[5], edgecolor='white')
    below.set(xlim=(-0.02, 1.02), xlabel='Probability given', ylabel='Count')
    below.yaxis.set_major_locator(_whole())
    return svg(figure)


def curve(
  records: Sequence[Mapping[str, float]], name: str, boundaries: Sequence[int], best: int | None
) -> str:
  """Return a quantity against the step, in training (where recorded) and validation.

  `boundaries` are the first steps of later phases, `best` the step of the checkpoint that was kept.
  """
  with _axes((4.3, 3)) as (figure, (axes,)):
    step, value = _series(records, f'train/{name}')
    if len(step):
      axes.plot(step, value, color=COLOURS[0], linewidth=0.7, alpha=0.35)
      axes.plot(step, _smooth(value), color=COLOURS[0], label='training')
    axes.plot(
      *_series(records, f'val/{name}'),
      color=COLOURS[1],
      marker='o',
      markersize=3.5,
      label='validation',
    )
    for boundary in boundaries:
      axes.axvline(boundary, color=INK, linewidth=0.9, linestyle=(0, (2, 3)))
    if best is not None:
      axes.axvline(best, color=COLOURS[2], linewidth=1.1)
    axes.set(xlabel='Step', ylabel=LABELS[name])
    axes.legend()
    return svg(figure)


def variants(
  names: Sequence[str], intervals: Sequence[Mapping[str, Any]], label: str, axis: str
) -> str:
  """Return a metric of each variant with its interval, in their order."""
  place = np.arange(len(names))
  value, low, high = _parts(intervals)
  short = max(map(len, names)) < 8
  rotation = 0 if short else 35
  with _axes((8.6, 3.4)) as (figure, (axes,)):
    axes.vlines(place, low, high, color=COLOURS[5], linewidth=3.2, alpha=0.75)
    axes.plot(place, value, color=COLOURS[0], linewidth=1, **DOT)
    axes.set(xlabel=axis, ylabel=label, xlim=(-0.6, len(names) - 0.4))
    axes.set_xticks(place, names, rotation=rotation, ha='center' if short else 'right')
    return svg(figure)


def _parts(intervals: Sequence[Mapping[str, Any]]) -> Iterator[np.ndarray]:
  """Yield value, low and high of intervals as arrays; what is not there is nan."""
  for part in ('value', 'low', 'high'):
    numbers = [interval[part] for interval in intervals]
    yield np.array([np.nan if number is None else number for number in numbers])


def families(
  curves: Mapping[str, Sequence[tuple[float, Mapping[str, Any]]]], label: str, axis: str
) -> str:
  """Return a metric against an amount, a line for each family: {name: [(amount, interval)]}."""
  with _axes((8.6, 3.8)) as (figure, (axes,)):
    for style, (name, points) in zip(_styles(), curves.items(), strict=False):
      amount = [x for x, _ in points]
      value, low, high = _parts([item for _, item in points])
      axes.fill_between(amount, low, high, color=style['color'], alpha=0.13, linewidth=0)
      axes.plot(amount, value, label=name, color=style['color'], **DOT)
    axes.set(xlabel=axis, ylabel=label)
    axes.legend(loc='lower right')
    return svg(figure)


def rates(test: Mapping[str, Any]) -> str:
  """Return the loss against the learning rate of a range test.

  `test` holds rates, losses, means, and the rates `steepest` and `tenth`.
  """
  with _axes((8.6, 3.4)) as (figure, (axes,)):
    axes.plot(test['rates'], test['losses'], color=COLOURS[0], linewidth=0.7, alpha=0.4)
    axes.plot(test['rates'], test['means'], color=COLOURS[0])
    axes.axvline(test['steepest'], color=COLOURS[2], linewidth=1.1)
    axes.axvline(test['tenth'], color=COLOURS[1], linewidth=1.1)
    axes.set(xscale='log', xlabel='Learning rate', ylabel='Training loss')
    # matplotlib's own format needs its mathematics, which is off here
    axes.xaxis.set_major_formatter(lambda rate, _: f'{rate:.0e}')
    highest = min(max(test['losses']), 2.5 * test['means'][0])
    axes.set_ylim(top=highest * 1.05)
    return svg(figure)


def picture(x: np.ndarray) -> str:
  """Return what the model saw, x [*s, c] in 0 … 1 or 8 bits.

  It is a picture, a volume's middle slice, or a recording's traces.
  """
  x = _unit_range(x)
  if x.ndim == 2:
    return _traces(x)
  if x.ndim == 4:
    x = x[len(x) // 2]
  from PIL import Image

  low = min(0.0, float(x.min()))
  high = max(1.0, float(x.max()))
  grey = np.round((x - low) / (high - low) * 255).astype(np.uint8)
  image = Image.fromarray(grey if x.shape[-1] == 3 else grey[..., 0])
  if max(image.size) > 320:
    image.thumbnail((320, 320))
  elif max(image.size) < 112:  # the pixels themselves, not a blur of them
    factor = 224 // max(image.size)
    size = (image.width * factor, image.height * factor)
    image = image.resize(size, Image.Resampling.NEAREST)
  file = io.BytesIO()
  image.save(file, 'PNG', optimize=True)
  return uri(file.getvalue(), 'image/png')


def _unit_range(x: np.ndarray) -> np.ndarray:
  """Return a picture in 0 … 1, also one of 8 bits."""
  x = np.asarray(x)
  return x / np.float32(255 if x.dtype == np.uint8 else 1)


def contours(x: np.ndarray, truth: np.ndarray, prediction: np.ndarray) -> str:
  """Return a picture with the contours of two masks [h, w] of classes.

  x [h, w, c] is in 0 … 1 or 8 bits.
  """
  x = _unit_range(x)
  height, width = truth.shape
  places = (np.arange(-1, width + 1), np.arange(-1, height + 1))
  with _axes((3, 3 * height / width)) as (figure, (axes,)):
    grey = x if x.shape[-1] == 3 else x[..., 0]
    axes.imshow(np.clip(grey, 0, 1), cmap='gray', vmin=0, vmax=1)
    for mask, colour, style in ((truth, COLOURS[2], '-'), (prediction, COLOURS[1], '--')):
      line: Any = {'colors': colour, 'linestyles': style, 'linewidths': 1.6}
      for label in np.unique(mask[mask > 0]):
        inside = np.pad(mask == label, 1).astype(float)  # so that a contour closes at the border
        axes.contour(*places, inside, [0.5], **line)
    axes.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5), xticks=[], yticks=[])
    axes.grid(False)
    return svg(figure)


def histogram(values: np.ndarray, label: str, count: str) -> str:
  """Return how often values of 0 … 1 fall into each twentieth, with their median."""
  with _axes((4.3, 3)) as (figure, (axes,)):
    axes.hist(values, np.linspace(0, 1, 21), color=COLOURS[5], edgecolor='white')
    axes.axvline(float(np.median(values)), color=COLOURS[0], linewidth=1.4)
    axes.set(xlim=(-0.02, 1.02), xlabel=label, ylabel=count)
    axes.yaxis.set_major_locator(_whole())
    return svg(figure)


def _traces(x: np.ndarray) -> str:
  with _axes((4, 3)) as (figure, (axes,)):
    gap = 1.1 * float(np.ptp(x)) / max(1, x.shape[1] ** 0.5) or 1.0
    for channel, trace in enumerate(x.T):
      axes.plot(trace - channel * gap, color=INK, linewidth=0.7)
    axes.set(xticks=[], yticks=[])
    return svg(figure)


def svg(figure: Any) -> str:
  """Return a figure as a data URI, the same bytes each time."""
  file = io.BytesIO()
  figure.savefig(
    file,
    format='svg',
    metadata={'Date': None, 'Creator': None},
    bbox_inches='tight',
    pad_inches=0.04,
  )
  return uri(file.getvalue(), 'image/svg+xml')


def uri(data: bytes, kind: str) -> str:
  """Return bytes as a data URI."""
  return f'data:{kind};base64,{base64.b64encode(data).decode()}'


@contextlib.contextmanager
def _axes(size: tuple[float, float], rows: Sequence[float] = (1,)) -> Iterator[tuple[Any, Any]]:
  """Give a figure and its axes in the report's style; rows are their heights."""
  import matplotlib
  from matplotlib.figure import Figure

  heights = {'height_ratios': rows}
  with matplotlib.rc_context(STYLE):
    figure = Figure(figsize=size, layout='constrained')
    axes = figure.subplots(len(rows), squeeze=False, gridspec_kw=heights)
    yield figure, axes.ravel()


def _styles() -> Any:
  return ({'color': colour, 'linestyle': style} for style in STYLES for colour in COLOURS)


def _square(curves: int) -> tuple[float, float]:
  """Return the size in inches of axes with so many curves, and a long legend below them."""
  width, height = SQUARE
  rows = math.ceil(curves / 2) if curves > FEW else 0
  return width, height + 0.2 * rows


def _legend(figure: Any, axes: Any, title: str, corner: str) -> None:
  """Name the curves: in a corner of the axes, below them where many would be covered."""
  curves, names = axes.get_legend_handles_labels()
  if len(names) > FEW:
    figure.legend(curves, names, loc='outside lower center', ncols=2, title=title)
  else:
    axes.legend(loc=corner, title=title if len(names) > 1 else None, alignment='left')


def _unit(axes: Any, x: str, y: str) -> None:
  axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xlabel=x, ylabel=y)


def _whole() -> Any:
  from matplotlib.ticker import MaxNLocator

  return MaxNLocator(nbins=3, integer=True)


def _series(records: Sequence[Mapping[str, float]], name: str) -> tuple[np.ndarray, np.ndarray]:
  pairs = [(record['step'], record[name]) for record in records if name in record]
  step, value = np.array(pairs, float).reshape(-1, 2).T
  return step, value


def _smooth(value: np.ndarray) -> np.ndarray:
  """Return the running mean over a twentieth of the run, shorter at the ends."""
  width = max(1, len(value) // 20)
  kernel = np.ones(width)
  total = np.convolve(value, kernel, 'same')
  count = np.convolve(np.ones(len(value)), kernel, 'same')
  return total / count

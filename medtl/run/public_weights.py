"""What the verb `weights` tells: the public checkpoints, and what a checkpoint file is."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from medtl.core.types import Weights
from medtl.models import catalogue, identification
from medtl.models.catalogue import Entry
from medtl.models.identification import Finding, Known
from medtl.models.pretrained import port
from medtl.runtime.downloads import digests

HEADER = ('name', 'config.model.name', 'parameters', 'input', 'classes', 'licence; terms', 'here')
MOST = 6  # names of one kind that are listed


def listing(pattern: str = '') -> list[str]:
  """Return the lines of a table of the public checkpoints in which a pattern is found."""
  entries = catalogue.entries(pattern)
  rows = [HEADER, *map(_cells, entries)]
  widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
  lines = []
  for row in rows:
    padded = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
    lines.append('  '.join(padded).rstrip())
  if len(entries) == 1:
    lines += ['', *_described(entries[0])]
  return lines


def _cells(entry: Entry) -> tuple[str, ...]:
  weights = entry.weights
  is_here = catalogue.file_of(entry) is not None
  return (
    entry.name,
    entry.network,
    f'{catalogue.count_parameters(entry):,}',
    _input(weights),
    str(weights.classes or '-'),
    _licence(weights),
    'yes' if is_here else 'by hand' if not weights.url else '-',
  )


def _input(weights: Weights) -> str:
  """Return what pictures a checkpoint was trained on.

  >>> _input(Weights('https://host/x.pth', size=224, channels=1))
  '224 px, 1 channel'
  """
  channels = f'{weights.channels} channel' + 's' * (weights.channels != 1)
  return f'{weights.size} px, {channels}' if weights.size else f'any size, {channels}'


def _licence(weights: Weights) -> str:
  """Return the licence and what binds beyond it."""
  return '; '.join(filter(None, (weights.licence or 'not stated', weights.terms)))


def _described(entry: Entry) -> Iterator[str]:
  """Yield the lines that say all of one checkpoint."""
  weights = entry.weights
  keys = {'name': entry.network, 'weights': entry.name, **weights.keys}
  words = ', '.join(f'{key}={value!r}' for key, value in keys.items())
  yield f'config.model = dict({words})'
  yield f'  trained on   {weights.trained_on}'
  yield f'  normalised   {_normalised(weights.mean, weights.std)}'
  yield f'  file         {weights.url or f"got by hand at {weights.page}"}'
  if weights.sha256 or weights.md5:
    yield f'  checksum     {_checksum(weights)}'
  yield f'  read in      {weights.note}'


def _checksum(weights: Weights) -> str:
  return f'sha256 {weights.sha256}' if weights.sha256 else f'md5 {weights.md5}'


def _normalised(mean: Sequence[float], std: Sequence[float]) -> str:
  """Return what becomes of pictures of 0 … 1.

  >>> _normalised((0.5,), (0.5,))
  'mean 0.5, std 0.5: pictures of 0 … 1 become -1 … 1'
  """
  low = min(-m / s for m, s in zip(mean, std, strict=True))
  high = max((1 - m) / s for m, s in zip(mean, std, strict=True))
  means = ', '.join(f'{m:.4g}' for m in mean)
  stds = ', '.join(f'{s:.4g}' for s in std)
  return f'mean {means}, std {stds}: pictures of 0 … 1 become {low:.4g} … {high:.4g}'


def check(path: Path) -> tuple[list[str], bool]:
  """Return (the lines that say what a file is and how a config names it; whether it fits).

  Nothing in the file is executed. Raises MedtlError where it is no checkpoint, or of no network
  that there is here.
  """
  remarks: list[str] = []
  arrays = identification.read(path, remarks.append)
  finding = identification.identify(arrays)
  known = identification.known_by_checksum(path)
  lines = [f'{path.name}: {len(arrays)} arrays, {_sizes(arrays)} numbers']
  lines += [f'  {remark}' for remark in remarks]
  lines += _fit(finding, path, known)
  lines += _publisher(finding, path, known)
  return lines, not finding.faults


def _sizes(arrays: identification.Arrays) -> str:
  return f'{sum(array.size for array in arrays.values()):,}'


def _fit(finding: Finding, path: Path, known: Known | None) -> Iterator[str]:
  """Yield the network that the file fits, what does not fit, and what the network wants to see."""
  keys = {'name': finding.network, 'weights': str(path), **finding.keys}
  words = ', '.join(f'{key}={value!r}' for key, value in keys.items())
  fits = 'fits' if not finding.faults else 'is nearest to'
  yield f'  {fits} {finding.network}, in the names of {finding.dialect!r}'
  for fault in port.shortened(finding.faults, MOST):
    yield f'    {fault}'
  if not finding.faults:
    yield f'  config.model = dict({words})'
    if finding.truncate:
      yield f'  config.truncate = {finding.truncate}: the children after these are not in the file'
  if finding.left_out:
    shown = ', '.join(finding.left_out[:MOST])
    more = f', {len(finding.left_out) - MOST} more' if len(finding.left_out) > MOST else ''
    yield f'  not used: {shown}{more}'
  mean, std = finding.mean, finding.std
  if known:
    mean, std = known.entry.weights.mean, known.entry.weights.std
  yield f'  input: {_channels(finding.channels)}; {_normalised(mean, std)}'
  if finding.classes:
    norm = f', behind config.head.norm={finding.head_norm!r}' if finding.head_norm else ''
    yield f'  its own head tells {finding.classes} classes apart{norm}'
  else:
    yield '  it has no head of its own'


def _channels(count: int) -> str:
  return f'{count} channel' + 's' * (count != 1)


def _publisher(finding: Finding, path: Path, known: Known | None) -> Iterator[str]:
  """Yield which public checkpoint the file is, or may be, and on what terms."""
  if known:
    weights = known.entry.weights
    which = 'an earlier file of' if known.is_older else 'the file of'
    yield f'  it is {which} {known.entry.name} by its checksum; trained on {weights.trained_on}'
    yield f'  {_input(weights)}; licence: {_licence(weights)}'
    return
  unchecked = []
  for entry in identification.same_network(finding):
    is_alike = entry.weights.classes in (finding.classes, 0)
    if is_alike and not (entry.weights.sha256 or entry.weights.md5):
      unchecked.append(entry.name)
  yield f'  sha256 {digests(path).sha256} is of no public checkpoint known here'
  if unchecked:
    yield (
      '  it may be one of those that are published without a checksum: '
      f'{", ".join(unchecked[:MOST])}'
    )
  yield '  licence: not known from the file; ask whoever gave it'

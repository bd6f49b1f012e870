"""Any data set that TensorFlow Datasets has prepared as ArrayRecord, read without TensorFlow.

Parquet is not read: asked for a part of a split, its reader returns every row, which is a leak.
TFRecord is not read either: it has no random access.
"""

import hashlib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from medtl.core.expressions import did_you_mean
from medtl.core.types import Dataset, Example, MedtlError, Table
from medtl.data.formats.pictures import read
from medtl.data.listing import labels
from medtl.data.listing.records import side

OURS = ('row', 'y', 'split', 'content')  # columns of the table that no feature's name may hide
SCALARS = ('ClassLabel', 'Text', 'Scalar', 'Tensor')  # features of one number or text


def load(
  builder: str,
  *,
  root: str,
  splits: Sequence[str] = (),
  image: str = 'image',
  label: str = 'label',
  patient: str = '',
  exif: str = 'stop',
) -> Dataset:
  """Return the rows of `splits` (default: all) of root/builder.

  `table['split']` is train, val, test, or the split's own name. `builder` is 'name' or
  'name/config', with ':version' where there are several.

  Encoded pictures are decoded as `folder` does: x is [h, w, 1 or 3] in 0 … 1. A tensor must be
  [*s, c]; integers are divided by their type's largest value. `label` is a ClassLabel, an integer
  from 0, or a text. Other features of one number or text become columns of the table; `patient`
  says which of them is the patient.

  Raises MedtlError where nothing is prepared there, or where its format cannot be read.
  """
  import tensorflow_datasets as tfds

  prepared = tfds.builder_from_directory(_folder(Path(root).expanduser(), builder))
  info = prepared.info
  names = tuple(splits) or tuple(info.splits)
  features = [image, label, patient] if patient else [image, label]
  _check(info, names, features)
  feature = info.features[image]
  is_encoded = isinstance(feature, tfds.features.Image)
  decoders = {image: tfds.decode.SkipDecoding()} if is_encoded else None
  sources = []
  for name in names:
    source = prepared.as_data_source(name, decoders=decoders, file_format='array_record')
    sources.append(source)
  columns = _columns(info, sources, label)
  class_names = getattr(info.features[label], 'names', None)
  classes, y, order = _labels(columns.pop(label), class_names)
  sides = [side(name) or name for name in names]
  counts = [len(source) for source in sources]
  table = {'row': np.arange(len(y)), 'y': y, 'split': np.repeat(sides, counts)}
  for name, column in columns.items():
    table[_column(name, patient)] = _filled(column)
  ends = np.cumsum(counts)
  starts = ends - counts

  def fetch(row: int) -> Example:
    part = int(np.searchsorted(ends, row, side='right'))
    index = int(row - starts[part])
    value = sources[part][index][image]
    try:
      if is_encoded:
        x = _picture(value, feature.shape[-1], exif)
      else:
        x = _scaled(np.asarray(value))
    except (OSError, MedtlError) as error:
      where = f'{info.full_name}, {names[part]}, example {index}'
      raise type(error)(f'{where}: {error}') from error
    return Example(x, y[row], row)

  facts = dict(
    name=info.full_name,
    order=order,
    citation=info.citation,
    url=info.homepage,
    licence=info.as_proto.redistribution_info.license,
  )
  return Dataset(fetch, len(y), classes, table, facts, _fingerprint(info, names, table))


def _folder(root: Path, builder: str) -> Path:
  """Return the one folder of root/builder that holds a prepared data set."""
  base = root / builder.replace(':', '/')
  folders: list[Path] = []
  for depth in ('', '*/', '*/*/'):
    folders += [path.parent for path in base.glob(f'{depth}dataset_info.json')]
  folders.sort()
  if not folders:
    known = _subfolders(root)
    raise MedtlError(
      f'{base} holds no prepared data set (dataset_info.json); {did_you_mean(builder, known)}. '
      "Prepare it with TFDS's download_and_prepare and file_format='array_record', OCT2017 with "
      'python -m medtl.data.prepare.oct2017'
    )
  if len(folders) > 1:
    names = [f'{path.parent.relative_to(root)}:{path.name}' for path in folders]
    raise MedtlError(
      f'{base} holds {len(folders)} prepared data sets; expected data.builder to be one of '
      f'{", ".join(names)}'
    )
  return folders[0]


def _subfolders(root: Path) -> list[str]:
  return [path.name for path in root.iterdir() if path.is_dir()] if root.is_dir() else []


def _check(info: Any, names: Sequence[str], features: Sequence[str]) -> None:
  """Raise where the format cannot be read, or a split, a feature or a file is missing."""
  formats = sorted(known.value for known in info.available_file_formats())
  if 'array_record' not in formats:
    raise MedtlError(
      f'{info.full_name} is prepared as {" and ".join(formats)}, which is not read here (the '
      'reader would mix splits, or lacks random access); prepare it anew with '
      "file_format='array_record'"
    )
  for name in names:
    if name not in info.splits:
      raise MedtlError(
        f'{info.full_name} has no split {name!r}, nor are parts of a split read; '
        f'{did_you_mean(name, info.splits)}'
      )
    for path in info.splits[name].filepaths:
      if not Path(path).is_file():
        raise MedtlError(
          f'{info.full_name} is not whole: {path} is missing; copy or prepare it anew'
        )
  for name in features:
    if name not in info.features:
      raise MedtlError(
        f'{info.full_name} has no feature {name!r}; {did_you_mean(name, info.features)}'
      )


def _columns(info: Any, sources: Sequence[Any], label: str) -> dict[str, np.ndarray]:
  """Return {name: [n]} of the features that are one number or text.

  Every record is read once; no picture is decoded.
  """
  names = []
  for name, feature in info.features.items():
    if feature.shape == () and type(feature).__name__ in SCALARS:
      names.append(name)
  if label not in names:
    raise MedtlError(
      f'the label {label!r} of {info.full_name} is {info.features[label]}; expected one class, '
      'integer or text'
    )
  columns: dict[str, list] = {name: [] for name in names}
  for source in sources:
    try:
      for index in range(len(source)):
        record = source[index]
        for name in names:
          value = record[name]
          columns[name].append(value.decode() if isinstance(value, bytes) else value)
    except RuntimeError as error:  # what ArrayRecord's reader raises
      raise MedtlError(
        f'{info.full_name} cannot be read: {error}; copy or prepare it anew'
      ) from error
  return {name: np.array(values) for name, values in columns.items()}


def _labels(column: np.ndarray, class_names: Sequence[str] | None) -> labels.Labels:
  """Return the labels of a feature: of a ClassLabel with names, of whole numbers, or of texts."""
  if column.dtype.kind in 'iu':
    numbers = range(int(column.max()) + 1)
    classes = tuple(class_names or map(str, numbers))
    order = labels.GIVEN if class_names else labels.NUMBERS
    return labels.Labels(classes, column.astype(np.int32), order)
  if column.dtype.kind != 'U':
    raise MedtlError(f'labels are {column.dtype}; expected classes, integers or texts')
  examples = [f'example {number}' for number in range(len(column))]
  return labels.find(column, 'label', (), examples, labels.MISSING)


def _filled(column: np.ndarray) -> np.ndarray:
  """Return a column with '' for every text that stands for a missing value."""
  if column.dtype.kind != 'U':
    return column
  return np.where(labels.missing(column, labels.MISSING), '', column)


def _column(name: str, patient: str) -> str:
  """Return what a feature is called in the table."""
  if name == patient:
    return 'patient'
  return f'{name}_' if name in OURS else name


def _picture(encoded: bytes, channels: int | None, exif: str) -> np.ndarray:
  """Return a picture file's [h, w, 1 or 3] float32; a number of channels that is not 1 means 3."""
  return read(io.BytesIO(encoded), 1 if channels == 1 else 3, exif)


def _scaled(value: np.ndarray) -> np.ndarray:
  """Return a tensor as float32, integers divided by the largest value of their type."""
  x = value.astype(np.float32)
  if value.dtype.kind not in 'iu':
    return x
  return x / np.float32(np.iinfo(value.dtype).max)


def _fingerprint(info: Any, names: Sequence[str], table: Table) -> str:
  """Return a sha256 of the table and of each record file's place, size and times."""
  digest = hashlib.sha256()
  for name, column in sorted(table.items()):
    digest.update(f'{name}\t{np.asarray(column).tolist()}\n'.encode())
  for name in names:
    for place in info.splits[name].filepaths:
      path = Path(place)
      status = path.stat()
      state = f'{status.st_size}\t{status.st_mtime_ns}\t{status.st_ctime_ns}'
      digest.update(f'{path.absolute()}\t{state}\n'.encode())
  return digest.hexdigest()

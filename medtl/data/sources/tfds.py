"""Any data set that TensorFlow Datasets has prepared as ArrayRecord, read without TensorFlow.

Not parquet, whose reader returns every row for a part of a split (a leak), nor tfrecord, which has no random access.
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

OURS = ('row', 'y', 'split', 'content')  # columns of the table that a feature's name must not hide


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
  """Return the rows of `splits` (default: all) of root/builder; `table['split']` is train, val, test or the split's own name.

  `builder` is 'name' or 'name/config', with ':version' where there are several. Pictures are decoded as `folder` does, x
  [h, w, 1 or 3] in 0 … 1; a tensor must be [*s, c], integers are divided by their type's largest value. `label` is a ClassLabel,
  an integer from 0 or a text. Other features of one number or text become columns; `patient` says which of them is the patient.
  """
  import tensorflow_datasets as tfds

  prepared = tfds.builder_from_directory(_folder(Path(root).expanduser(), builder))
  info, names = prepared.info, tuple(splits) or tuple(prepared.info.splits)
  _check(info, names, (image, label, *filter(None, [patient])))
  feature = info.features[image]
  encoded = isinstance(feature, tfds.features.Image)
  decoders = {image: tfds.decode.SkipDecoding()} if encoded else None
  sources = [
    prepared.as_data_source(name, decoders=decoders, file_format='array_record') for name in names
  ]
  columns = _columns(info, sources, label)
  classes, y, order = _labels(columns.pop(label), getattr(info.features[label], 'names', None))
  sides = np.repeat([side(name) or name for name in names], [len(source) for source in sources])
  table = {'row': np.arange(len(y)), 'y': y, 'split': sides}
  table |= {_column(name, patient): _filled(column) for name, column in columns.items()}
  places = [
    (name, source, index)
    for name, source in zip(names, sources, strict=True)
    for index in range(len(source))
  ]

  def fetch(row: int) -> Example:
    name, source, index = places[row]
    value = source[index][image]
    try:
      x = _picture(value, feature.shape[-1], exif) if encoded else _scaled(np.asarray(value))
    except (OSError, MedtlError) as error:
      raise type(error)(f'{info.full_name}, {name}, example {index}: {error}') from error
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
  found = sorted(
    path.parent for depth in ('', '*/', '*/*/') for path in base.glob(f'{depth}dataset_info.json')
  )
  if not found:
    raise MedtlError(
      f'{base} holds no prepared data set (dataset_info.json); {did_you_mean(builder, _subfolders(root))}. Prepare it '
      "with TFDS's download_and_prepare and file_format='array_record', OCT2017 with python -m medtl.data.prepare.oct2017"
    )
  if len(found) > 1:
    names = [f'{path.parent.relative_to(root)}:{path.name}' for path in found]
    raise MedtlError(
      f'{base} holds {len(found)} prepared data sets; expected data.builder to be one of {", ".join(names)}'
    )
  return found[0]


def _subfolders(root: Path) -> list[str]:
  return [path.name for path in root.iterdir() if path.is_dir()] if root.is_dir() else []


def _check(info: Any, names: Sequence[str], features: Sequence[str]) -> None:
  """Raise where the format cannot be read, or a split, a feature or a file is missing."""
  formats = sorted(one.value for one in info.available_file_formats())
  if 'array_record' not in formats:
    raise MedtlError(
      f'{info.full_name} is prepared as {" and ".join(formats)}, which is not read here (the reader would '
      "mix splits, or lacks random access); prepare it anew with file_format='array_record'"
    )
  for name in names:
    if name not in info.splits:
      raise MedtlError(
        f'{info.full_name} has no split {name!r}, nor are parts of a split read; {did_you_mean(name, info.splits)}'
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
  """Return {name: [n]} of the features that are one number or text; every record is read once, no picture is decoded."""
  names = [
    name
    for name, feature in info.features.items()
    if feature.shape == () and type(feature).__name__ in ('ClassLabel', 'Text', 'Scalar', 'Tensor')
  ]
  if label not in names:
    raise MedtlError(
      f'the label {label!r} of {info.full_name} is {info.features[label]}; expected one class, integer or text'
    )
  values: dict[str, list] = {name: [] for name in names}
  for source in sources:
    try:
      for index in range(len(source)):
        record = source[index]
        for name in names:
          values[name].append(
            record[name].decode() if isinstance(record[name], bytes) else record[name]
          )
    except RuntimeError as error:  # what ArrayRecord's reader raises
      raise MedtlError(
        f'{info.full_name} cannot be read: {error}; copy or prepare it anew'
      ) from error
  return {name: np.array(column) for name, column in values.items()}


def _labels(column: np.ndarray, known: Sequence[str] | None) -> labels.Labels:
  """Return the labels of a feature: a ClassLabel's (`known` are its names), whole numbers, or text."""
  if column.dtype.kind in 'iu':
    classes = tuple(known or map(str, range(int(column.max()) + 1)))
    return labels.Labels(
      classes, column.astype(np.int32), labels.GIVEN if known else labels.NUMBERS
    )
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
  return 'patient' if name == patient else f'{name}_' if name in OURS else name


def _picture(encoded: bytes, channels: int | None, exif: str) -> np.ndarray:
  return read(io.BytesIO(encoded), 1 if channels == 1 else 3, exif)


def _scaled(value: np.ndarray) -> np.ndarray:
  x = value.astype(np.float32)
  return x / np.float32(np.iinfo(value.dtype).max) if value.dtype.kind in 'iu' else x


def _fingerprint(info: Any, names: Sequence[str], table: Table) -> str:
  """Return a sha256 of the table and of the place, size and times of each file that holds the examples."""
  digest = hashlib.sha256()
  for name, column in sorted(table.items()):
    digest.update(f'{name}\t{np.asarray(column).tolist()}\n'.encode())
  for path in (Path(path) for name in names for path in info.splits[name].filepaths):
    status = path.stat()
    digest.update(
      f'{path.absolute()}\t{status.st_size}\t{status.st_mtime_ns}\t{status.st_ctime_ns}\n'.encode()
    )
  return digest.hexdigest()

"""csv manifests: text without any checksum, so that a cell may hold any other legal value.

What can be noticed: rows with another number of fields, names without a file, labels outside the
classes (where `classes` says which there are), labels that differ in case or blanks only.
"""

import io
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from PIL import Image

from tests.fuzz.files import EVERYTHING, NOTHING, Lie, Original, Outputs, Region, picture

FILES = tuple(f'scan{number}.png' for number in range(1, 9))
ROWS = [
  ('scan1.png', 'benign', 'p01', 'train', '61'),
  ('scan2.png', 'malignant', 'p02', 'test', '7'),
  ('scan3.png', 'benign', 'p03', 'train', '58'),
  ('scan4.png', 'malignant', 'p04', 'val', '64'),
  ('scan5.png', 'malignant', 'p05', 'train', '39'),
  ('scan6.png', 'benign', 'p02', 'test', '7'),
  ('scan7.png', 'benign', 'p06', 'val', '77'),
  ('scan8.png', 'benign', 'p07', 'train', '50'),
]
HEADER = ('file', 'label', 'patient', 'side', 'age')
MANY = ('file', 'mass', 'cyst', 'patient')
KEYS = dict(label='label', patient='patient', partition='side')
CLASSES = ('benign', 'malignant')


class Cell(NamedTuple):
  """One field of one row."""

  row: int  # 0: the header
  column: int
  start: int  # without quotes
  stop: int


def pictures() -> dict[str, bytes]:
  """Return the files that the manifests list."""
  found = {}
  for number, name in enumerate(FILES):
    file = io.BytesIO()
    Image.fromarray(picture((6, 5), 255, number).astype(np.uint8)).save(file, 'PNG')
    found[name] = file.getvalue()
  return found


def originals() -> Iterator[Original]:
  """Give manifests: plain, quoted, from Windows, with classes given or not, of many labels."""
  plain = text(HEADER, ROWS)
  quoted = text(HEADER, ROWS, quote='"')
  many = [(row[0], '01'[place % 2], '10'[place // 4], row[2]) for place, row in enumerate(ROWS)]
  y = np.array([CLASSES.index(row[1]) for row in ROWS], np.int32)
  columns = dict(
    y=y,
    patient=np.array([row[2] for row in ROWS]),
    split=np.array([row[3] for row in ROWS]),
    classes=np.array(CLASSES),
  )
  labels = np.array([row[1:3] for row in many]).astype(np.float32)
  yield _original('classes given', plain, dict(KEYS, classes=CLASSES), columns)
  yield _original('classes found', plain, KEYS, columns)
  yield _original('quoted', quoted, dict(KEYS, classes=CLASSES), columns)
  yield _original('from Windows', b'\xef\xbb\xbf' + text(HEADER, ROWS, end='\r\n'), KEYS, columns)
  yield _original(
    'many labels',
    text(MANY, many),
    dict(label=('mass', 'cyst'), patient='patient'),
    dict(y=labels, classes=np.array(MANY[1:3])),
  )


def text(
  header: tuple[str, ...], rows: list[tuple[str, ...]], quote: str = '', end: str = '\n'
) -> bytes:
  """Return a csv file."""
  lines = []
  for row in (header, *rows):
    lines.append(','.join(f'{quote}{field}{quote}' for field in row) + end)
  return ''.join(lines).encode()


def _original(name: str, data: bytes, keys: dict, truth: dict) -> Original:
  return Original(
    'csv',
    name,
    data,
    'manifest',
    '.csv',
    keys,
    truth,
    regions=_regions(data, keys),
    lies=lambda dice: _lies(data, keys),
    legal=lambda changed: _legal(changed, _header(data), keys),
  )


def cells(data: bytes) -> list[Cell]:
  """Return the fields of a file without commas or line ends inside quotes."""
  found = []
  place = 3 if data.startswith(b'\xef\xbb\xbf') else 0
  for row, line in enumerate(data[place:].splitlines(keepends=True)):
    start = place
    for column, field in enumerate(line.rstrip(b'\r\n').split(b',')):
      inner = field.strip(b'"')
      begin = start + field.index(inner)
      found.append(Cell(row, column, begin, begin + len(inner)))
      start += len(field) + 1
    place += len(line)
  return found


def _header(data: bytes) -> list[str]:
  return [data[cell.start : cell.stop].decode() for cell in cells(data) if cell.row == 0]


def _regions(data: bytes, keys: dict) -> list[Region]:
  """Return the fields whose value nothing contradicts, such as patients and ages."""
  names = _header(data)
  found = []
  for cell in cells(data):
    if cell.row:
      name = names[cell.column]
      outputs = {
        'patient': frozenset({'patient'}),
        'age': frozenset({'age'}),
        'label': NOTHING if 'classes' in keys else frozenset({'y', 'classes'}),
        'mass': frozenset({'y'}),
        'cyst': frozenset({'y'}),
      }.get(name, NOTHING)
      quote = data[cell.stop : cell.stop + 1] in (b'"', b'\r')  # then part of the field
      start, stop = cell.start - (data[cell.start - 1 : cell.start] == b'"'), cell.stop + quote
      found.append(Region(start, stop, outputs, grows=True, shrinks=True))
    elif names[cell.column] == 'age':
      found.append(Region(cell.start, cell.stop, EVERYTHING, grows=True, shrinks=True))
  return found


def _legal(data: bytes, header: list[str], keys: dict) -> Outputs:
  """Return EVERYTHING where a table is one that somebody could have meant."""
  try:
    lines = data.decode('utf-8-sig').replace('\r\n', '\n').splitlines()
  except UnicodeDecodeError:
    return NOTHING
  rows = [[_unquoted(field) for field in line.split(',')] for line in lines if line]
  if not rows or rows[0] != header or any(len(row) != len(header) for row in rows):
    return NOTHING
  named = [dict(zip(header, row, strict=True)) for row in rows[1:]]
  files = [row['file'] for row in named]
  whole = bool(named) and set(files) <= set(FILES) and len(set(files)) == len(files)
  return EVERYTHING if whole and all(_legal_row(row, keys) for row in named) else NOTHING


def _unquoted(field: str) -> str:
  """Return a field without its quotes."""
  quoted = len(field) > 1 and field[0] == field[-1] == '"'
  return field[1:-1] if quoted else field


def _legal_row(row: dict[str, str], keys: dict) -> bool:
  if not all(field.isprintable() and '"' not in field for field in row.values()):
    return False
  if 'side' in row and row['side'] not in ('train', 'val', 'test'):
    return False
  if 'label' not in row:
    return {row['mass'], row['cyst']} <= {'0', '1'}
  known = row['label'] in CLASSES
  doubtful = row['label'].lower() in (*CLASSES, 'na', 'nan', '')
  return known or ('classes' not in keys and not doubtful)


def _lies(data: bytes, keys: dict) -> Iterator[Lie]:
  yield from _forms(data)
  yield from _rows(data)
  yield from _columns(data)
  yield from _fields(data, keys)


def _lines(data: bytes) -> list[bytes]:
  return data.splitlines(keepends=True)


def _forms(data: bytes) -> Iterator[Lie]:
  """Give the same table as other programs write it."""
  words = data.decode('utf-8-sig')
  yield Lie('semicolons', data.replace(b',', b';'))
  yield Lie('tabs', data.replace(b',', b'\t'))
  yield Lie('UTF-16', words.encode('utf-16'))
  yield Lie('Latin-1', words.replace('p05', 'pö5').encode('latin-1'), frozenset({'patient'}))
  yield Lie('line ends of old Macs', words.replace('\r\n', '\n').replace('\n', '\r').encode())
  yield Lie('no line end at the end', data.rstrip(b'\r\n'))
  yield Lie('empty lines between', data.replace(b'\n', b'\n\n'))
  yield Lie('blanks around fields', data.replace(b',', b' , '))
  yield Lie(
    'a comma at each end',
    b''.join(line.rstrip(b'\r\n') + b',\n' for line in _lines(data)),
    frozenset({''}),
  )
  yield Lie('a line that names the separator', b'sep=,\n' + data)
  yield Lie('a title above the header', b'Study 12, all scans\n' + data)
  yield Lie('zeros behind the text', data + bytes(64))
  yield Lie('a zero in the text', data.replace(b'p03', b'p\x0003'), frozenset({'patient'}))
  yield Lie('header only', _lines(data)[0])
  yield Lie('no header', b''.join(_lines(data)[1:]))
  yield Lie('header twice', _lines(data)[0] + data)
  yield Lie('header in capitals', _lines(data)[0].upper() + b''.join(_lines(data)[1:]))


def _rows(data: bytes) -> Iterator[Lie]:
  """Give rows that are repeated, short, long or joined by a quote that never ends."""
  lines = _lines(data)
  yield Lie('a row twice', data + lines[2])
  yield Lie('a file twice with two labels', data + _other_label(lines[2]))
  yield Lie('a row short', b''.join([*lines[:3], lines[3].rpartition(b',')[0] + b'\n', *lines[4:]]))
  yield Lie('a row long', b''.join([*lines[:3], lines[3].rstrip() + b',1\n', *lines[4:]]))
  yield Lie('a row of one word', b''.join([*lines[:3], b'total: 8\n', *lines[3:]]))
  yield Lie('two rows in a line', data.replace(lines[3], lines[3].rstrip(b'\r\n') + b',', 1))
  for place in (1, 3, 8):
    first, rest = lines[place].split(b',', 1)
    broken = [*lines[:place], first + b',"' + rest.replace(b'"', b''), *lines[place + 1 :]]
    yield Lie(f'a quote never closed in row {place}', b''.join(broken))
  yield Lie('a field of 200000 signs', _noted(lines, b'x' * 200000), frozenset({'note'}))
  yield Lie('a line end inside quotes', _noted(lines, b'"two\nlines"'), frozenset({'note'}))


def _other_label(line: bytes) -> bytes:
  """Return a row with the other label."""
  if b'malignant' in line:
    return line.replace(b'malignant', b'benign')
  fields = line.split(b',')
  flipped = {b'0': b'1', b'1': b'0'}
  return b','.join(flipped.get(field, field) for field in fields)


def _noted(lines: list[bytes], note: bytes) -> bytes:
  """Return the table with a column of notes, which is empty but for the second row."""
  notes = [b'note', b'', note, *[b''] * (len(lines) - 3)]
  pairs = zip(lines, notes, strict=True)
  return b''.join(line.rstrip(b'\r\n') + b',' + word + b'\n' for line, word in pairs)


def _columns(data: bytes) -> Iterator[Lie]:
  """Give headers that name columns wrongly."""
  lines = _lines(data)
  head, rest = lines[0], b''.join(lines[1:])
  names = _header(data)
  label = names[1].encode()
  yield Lie('names of file and label swapped', _swap(head, b'file', label) + rest)
  yield Lie(
    'names of label and patient swapped',
    _swap(head, label, b'patient') + rest,
    EVERYTHING if b'label' in head else NOTHING,
  )
  last = names[-1].encode()
  twice = head.replace(last, label) if last != b'patient' else head.replace(last, names[2].encode())
  yield Lie('two columns of one name', twice + rest)
  yield Lie('a column without a name', head.replace(last, b'') + rest, frozenset({'age', ''}))
  yield Lie(
    'a name that the table has', head.replace(last, b'row') + rest, frozenset({'age', 'row_'})
  )
  yield Lie('no column of labels', head.replace(label, b'class') + rest)


def _swap(line: bytes, first: bytes, second: bytes) -> bytes:
  return line.replace(first, b'\0').replace(second, first).replace(b'\0', second)


def _fields(data: bytes, keys: dict) -> Iterator[Lie]:
  """Give fields that are no file, no label or no side."""
  names = _header(data)
  at = {(cell.row, names[cell.column]): cell for cell in cells(data)}

  def field(name: str, value: bytes) -> bytes:
    cell = at[3, name]
    return data[: cell.start] + value + data[cell.stop :]

  for value in (
    b'',
    b'scan9.png',
    b'SCAN3.PNG',
    b'../scan3.png',
    b'.',
    b'scan3',
    b'scan\x003.png',
    b'images\\scan3.png',
    b'x' * 300 + b'.png',
    b'http://host/scan3.png',
  ):
    yield Lie(f'file {value[:20]!r}', field('file', value))
  label = names[1]
  wrong = [b'', b'NA', b'nan', b'Benign', b'benign.', b'-1', b'0.5', b'?', b'\xff']
  for value in wrong:
    new_class = value in (b'benign.', b'-1', b'0.5', b'?') and label == 'label'
    legal = new_class and 'classes' not in keys
    outputs = frozenset({'y', 'classes'}) if legal else NOTHING
    yield Lie(f'label {value!r}', field(label, value), outputs)
  if 'side' in names:
    for value in (b'', b'trian', b'holdout', b'NA'):
      yield Lie(f'side {value!r}', field('side', value))
  yield Lie("patient ''", field('patient', b''), frozenset({'patient'}))

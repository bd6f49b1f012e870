"""MedMNIST v2 and MedMNIST+: 12 sets of pictures and 6 of volumes, each in several sizes.

They are fetched from Zenodo and checked by md5. Names, tasks, classes, licences and md5 are those
of the publisher's medmnist/info.py, version 3.0.2 (record 10519652).
"""

import shutil
import zipfile
import zlib
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from medtl.core.expressions import did_you_mean
from medtl.core.types import Dataset, Example, MedtlError
from medtl.data import ahead
from medtl.runtime import files
from medtl.runtime.downloads import Remote, cache_folder, cached_path, fetch, locked
from medtl.runtime.http_download import CHUNK

CITATION = (
  'Yang J. et al., MedMNIST v2: a large-scale lightweight benchmark for 2D and 3D biomedical image '
  'classification, Scientific Data 10:41, 2023, doi:10.1038/s41597-022-01721-8; beside the papers '
  'of its source data'
)
URL = 'https://zenodo.org/records/10519652/files/{file}?download=1'
SIDES = ('train', 'val', 'test')
NAMES = 'images and labels'
COLOUR = ('pathmnist', 'dermamnist', 'retinamnist', 'bloodmnist')  # n_channels 3 in info.py
ORGANS = (
  'bladder; femur-left; femur-right; heart; kidney-left; kidney-right; liver; lung-left; '
  'lung-right; pancreas; spleen'
)
SIZES = (28, 64, 128, 224)  # pixels a side
SIZES_3D = (28, 64)
# what zipfile raises for a damaged or unusual file
DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError)


class Source(NamedTuple):
  """One set, as the publisher describes it."""

  task: str  # multi-class | binary | multi-label | ordinal
  classes: str
  md5: str  # of its files, from the smallest size to the largest
  licence: str = 'CC BY 4.0'


SOURCES = {
  'pathmnist': Source(
    'multi-class',
    'adipose; background; debris; lymphocytes; mucus; smooth muscle; normal colon mucosa; '
    'cancer-associated stroma; colorectal adenocarcinoma epithelium',
    'a8b06965200029087d5bd730944a56c1 55aa9c1e0525abe5a6b9d8343a507616 '
    'ac42d08fb904d92c244187169d1fd1d9 2c51a510bcdc9cf8ddb2af93af1eadec',
  ),
  'chestmnist': Source(
    'multi-label',
    'atelectasis; cardiomegaly; effusion; infiltration; mass; nodule; pneumonia; pneumothorax; '
    'consolidation; edema; emphysema; fibrosis; pleural; hernia',
    '02c8a6516a18b556561a56cbdd36c4a8 9de6cd0b934ebb5b7426cfba5efbae16 '
    'db107e5590b27930b62dbaf558aebee3 45bd33e6f06c3e8cdb481c74a89152aa',
  ),
  'dermamnist': Source(
    'multi-class',
    'actinic keratoses and intraepithelial carcinoma; basal cell carcinoma; benign keratosis-like '
    'lesions; dermatofibroma; melanoma; melanocytic nevi; vascular lesions',
    '0744692d530f8e62ec473284d019b0c7 b70a2f5635c6199aeaa28c31d7202e1f '
    '2defd784463fa5243564e855ed717de1 8974907d8e169bef5f5b96bc506ae45d',
    'CC BY-NC 4.0',
  ),
  'octmnist': Source(
    'multi-class',
    'choroidal neovascularization; diabetic macular edema; drusen; normal',
    'c68d92d5b585d8d81f7112f81e2d0842 e229e9440236b774d9f0dfef9d07bdaf '
    '0a97e76651ace45c5d943ee3f65b63ae abc493b6d529d5de7569faaef2773ba3',
  ),
  'pneumoniamnist': Source(
    'binary',
    'normal; pneumonia',
    '28209eda62fecd6e6a2d98b1501bb15f 8f4eceb4ccffa70c672198ea285246c6 '
    '05b46931834c231683c68f40c47b2971 d6a3c71de1b945ea11211b03746c1fe1',
  ),
  'retinamnist': Source(
    'ordinal',
    '0; 1; 2; 3; 4',
    'bd4c0672f1bba3e3a89f0e4e876791e4 afda852cc34dcda56f86ad2b2457dbcc '
    'e48e916a24454daf90583d4e6efb1a18 eae7e3b6f3fcbda4ae613ebdcbe35348',
  ),
  'breastmnist': Source(
    'binary',
    'malignant; normal, benign',
    '750601b1f35ba3300ea97c75c52ff8f6 742edef2a1fd1524b2efff4bd7ba9364 '
    '363e4b3f8d712e9b5de15470a2aaadf1 b56378a6eefa9fed602bb16d192d4c8b',
  ),
  'bloodmnist': Source(
    'multi-class',
    'basophil; eosinophil; erythroblast; immature granulocytes(myelocytes, metamyelocytes and '
    'promyelocytes); lymphocyte; monocyte; neutrophil; platelet',
    '7053d0359d879ad8a5505303e11de1dc 2b94928a2ae4916078ca51e05b6b800b '
    'adace1e0ed228fccda1f39692059dd4c b718ff6835fcbdb22ba9eacccd7b2601',
  ),
  'tissuemnist': Source(
    'multi-class',
    'Collecting Duct, Connecting Tubule; Distal Convoluted Tubule; Glomerular endothelial cells; '
    'Interstitial endothelial cells; Leukocytes; Podocytes; Proximal Tubule Segments; Thick '
    'Ascending Limb',
    'ebe78ee8b05294063de985d821c1c34b 123ece2eba09d0aa5d698fda57103344 '
    '61b955355d7425a89687b06cca3ce0c2 b077128c4a949f0a4eb01517f9037b9c',
  ),
  'organamnist': Source(
    'multi-class',
    ORGANS,
    '68e3f8846a6bd62f0c9bf841c0d9eacc 2dcccc29b88e6da5a01161ef20cda288 '
    'eeae80d0a227a8d099027e1b3cfd3b60 50747347e05c87dd3aaf92c49f9f3170',
  ),
  'organcmnist': Source(
    'multi-class',
    ORGANS,
    'b9ceb9546e10131b32923c5bbeaea2b1 3ce34a8724ea6f548e6db4744d03b6a9 '
    '773c1f009daa3fe5d9a2a201b2a7ed94 050f5e875dc056f6768abf94ec9995d1',
  ),
  'organsmnist': Source(
    'multi-class',
    ORGANS,
    '9ab87b696fb54e2a387ebe992d6ed5f1 53a6d115339d874c25e309a994ff46d3 '
    'ded0c5fa01a95dc4978b956f613e9b8e b354719e553fbbb2513d5533f52a4cb1',
  ),
  'organmnist3d': Source(
    'multi-class',
    'liver; kidney-right; kidney-left; femur-right; femur-left; bladder; heart; lung-right; '
    'lung-left; spleen; pancreas',
    'a0c5a1ff56af4f155c46d46fbb45a2fe 58a2205adf14a9d0a189cb06dc78bf10',
  ),
  'nodulemnist3d': Source(
    'binary',
    'benign; malignant',
    '8755a7e9e05a4d9ce80a24c3e7a256f3 c47c5b7d457bf6332200d2ea6d64ecd8',
  ),
  'adrenalmnist3d': Source(
    'binary',
    'normal; hyperplasia',
    'bbd3c5a5576322bc4cdfea780653b1ce 17721accfe9fb005146a47d33bc54b2f',
  ),
  'fracturemnist3d': Source(
    'multi-class',
    'buckle rib fracture; nondisplaced rib fracture; displaced rib fracture',
    '6aa7b0143a6b42da40027a9dda61302f f01d7e6316aedf4210da0da5b7437b42',
  ),
  'vesselmnist3d': Source(
    'binary',
    'vessel; aneurysm',
    'b41fd4f7e7e2feedddb201585ecafa1b 6bb274a8846e1097066dcd64e2c4520f',
  ),
  'synapsemnist3d': Source(
    'binary',
    'inhibitory synapse; excitatory synapse',
    '1235b78a3cd6280881dd7850a78eadb6 43bd14ebf3af9d3dd072446fedc14d5e',
  ),
}

# examples of train, val and test: n_samples in info.py
COUNTS = {
  'pathmnist': (89996, 10004, 7180),
  'chestmnist': (78468, 11219, 22433),
  'dermamnist': (7007, 1003, 2005),
  'octmnist': (97477, 10832, 1000),
  'pneumoniamnist': (4708, 524, 624),
  'retinamnist': (1080, 120, 400),
  'breastmnist': (546, 78, 156),
  'bloodmnist': (11959, 1712, 3421),
  'tissuemnist': (165466, 23640, 47280),
  'organamnist': (34561, 6491, 17778),
  'organcmnist': (12975, 2392, 8216),
  'organsmnist': (13932, 2452, 8827),
  'organmnist3d': (971, 161, 610),
  'nodulemnist3d': (1158, 165, 310),
  'adrenalmnist3d': (1188, 98, 298),
  'fracturemnist3d': (1027, 103, 240),
  'vesselmnist3d': (1335, 191, 382),
  'synapsemnist3d': (1230, 177, 352),
}


def _ahead(
  flag: str = 'breastmnist', *, size: int = 28, root: str = '', hint: str = ''
) -> ahead.Ahead | None:
  """Return what is known of a set that is fetched; None where `root` holds it."""
  if root or flag not in SOURCES or size not in _sizes(flag):
    return None
  classes = tuple(SOURCES[flag].classes.split('; '))
  counts = COUNTS[flag]
  shape = _shape(flag, size)
  picture = np.zeros(shape if flag in COLOUR else (*shape, 1), np.float32)
  many = SOURCES[flag].task == 'multi-label'
  labels = ahead.classes_in_turn(sum(counts), len(classes), many)
  table = {
    'row': np.arange(sum(counts)),
    'y': labels,
    'split': np.repeat(SIDES, counts),
  }
  blank = Dataset(lambda index: Example(picture, labels[index], index), sum(counts), classes, table)
  name, url = _address(flag, size)
  remote = Remote(f'MedMNIST {name}', url, cached_path(url, f'medmnist/{name}'))
  return ahead.Ahead(remote, sum(counts) * picture.size, blank)


@ahead.known_ahead(_ahead)
def load(flag: str = 'breastmnist', *, size: int = 28, root: str = '', hint: str = '') -> Dataset:
  """Return the train, val and test rows of one set, in this order; `table['split']` tells which.

  x is [h, w, 1 or 3], or [d, h, w, 1] for the sets whose name ends in 3d, float32 in 0 … 1. y is an
  integer, or [k] float32 for multi-label sets. `root` is a folder or file that already holds the
  publisher's .npz; without it the file is downloaded. `hint` is added to the error where that
  fails: what to do instead. The publisher names no patients.
  """
  if flag not in SOURCES:
    raise MedtlError(f'MedMNIST has no {flag!r}; {did_you_mean(flag, SOURCES)}')
  source = SOURCES[flag]
  sizes = _sizes(flag)
  if size not in sizes:
    raise MedtlError(
      f'{flag} is published in sizes {", ".join(map(str, sizes))}, found size={size!r}; take the '
      "next larger one and ops='resize(…)'"
    )
  md5 = source.md5.split()[sizes.index(size)]
  path = _file(flag, size, root, md5, hint)
  classes = tuple(source.classes.split('; '))
  is_multi_label = source.task == 'multi-label'
  stored = _shape(flag, size)
  arrays = _arrays(_unpacked(path, md5), path, stored, len(classes) if is_multi_label else 1)
  y = np.concatenate([arrays[f'{side}_labels'] for side in SIDES])
  y = y.astype(np.float32) if is_multi_label else y[:, 0].astype(np.int32)
  images = [arrays[f'{side}_images'] for side in SIDES]
  counts = [len(part) for part in images]
  ends = np.cumsum(counts)
  shape = stored if flag in COLOUR else (*stored, 1)

  def read(index: int) -> Example:
    side = int(np.searchsorted(ends, index, side='right'))
    picture = images[side][index - ends[side]]  # counted from the end of its side
    x = picture.astype(np.float32) / np.float32(255)
    return Example(x.reshape(shape), y[index], index)

  table = {'row': np.arange(len(y)), 'y': y, 'split': np.repeat(SIDES, counts)}
  facts = dict(
    name=f'{flag} {size} px',
    task=source.task,
    licence=source.licence,
    citation=CITATION,
    url='https://zenodo.org/records/10519652',
  )
  return Dataset(read, len(y), classes, table, facts, fingerprint=f'md5:{md5}')


def _sizes(flag: str) -> tuple[int, ...]:
  """Return the sizes in which a set is published, in pixels a side."""
  return SIZES_3D if flag.endswith('3d') else SIZES


def _shape(flag: str, size: int) -> tuple[int, ...]:
  """Return the shape of a picture as the publisher stores it."""
  axes = 3 if flag.endswith('3d') else 2
  return (size,) * axes + ((3,) if flag in COLOUR else ())


def _address(flag: str, size: int) -> tuple[str, str]:
  """Return (name, URL) of the publisher's file."""
  name = f'{flag}.npz' if size == 28 else f'{flag}_{size}.npz'
  return name, URL.format(file=name)


def _file(flag: str, size: int, root: str, md5: str, hint: str) -> Path:
  """Return the publisher's file, from `root` or downloaded, its md5 checked."""
  name, url = _address(flag, size)
  purpose = f'MedMNIST {name}'
  if not root:
    return fetch(url, md5=md5, name=f'medmnist/{name}', purpose=purpose, hint=hint)
  path = Path(root).expanduser()
  if path.is_dir():
    path = path / name
  advice = f'download {url}, or leave root empty'
  return fetch(str(path), md5=md5, purpose=purpose, hint=advice)


def _unpacked(path: Path, md5: str) -> Path:
  """Return the folder with the file's arrays as .npy, unpacked once, whole or not at all."""
  folder = cache_folder() / 'medmnist' / md5
  if not folder.is_dir():
    with locked(folder):
      if not folder.is_dir():  # another process may have made it while this one waited
        _unpack(path, folder)
  return folder


def _unpack(path: Path, folder: Path) -> None:
  """Unpack a file's arrays to a folder, which is there only if all of it is."""
  for half in folder.parent.glob(f'{folder.name}*.part'):
    files.remove(half)  # of a process that was killed: this one has the lock
  try:
    with zipfile.ZipFile(path) as archive, files.atomic_write(folder, own=True) as aside:
      aside.mkdir()
      _extract(archive, path, aside)
  except (OSError, *DAMAGED) as error:
    raise MedtlError(
      f'cannot unpack {path} to {folder}: {error}; get it again, or make room'
    ) from error


def _extract(archive: zipfile.ZipFile, path: Path, folder: Path) -> None:
  """Write the members of an archive into a folder; MedtlError where two have one name."""
  members = archive.infolist()
  if len({member.filename for member in members}) < len(members):
    raise MedtlError(f'{path} holds two arrays of one name; get it again')
  size = sum(member.file_size for member in members)
  files.require_space(folder, size, f'the arrays of {path.name}')
  for member in members:  # as a stream: the largest array is 13.5 GB
    goal = folder / Path(member.filename).name
    with archive.open(member) as packed, goal.open('wb') as plain:
      shutil.copyfileobj(packed, plain, CHUNK)


def _arrays(
  folder: Path, path: Path, shape: tuple[int, ...], columns: int
) -> dict[str, np.ndarray]:
  """Return {'train_images': array, …} of the unpacked file; pictures are memory-mapped.

  MedtlError where they are not what the set is, see `_check`.
  """
  arrays: dict[str, np.ndarray] = {}
  for side in SIDES:
    images = f'{side}_images'
    labels = f'{side}_labels'
    arrays[images] = _array(folder, path, images, 'r')
    arrays[labels] = _array(folder, path, labels, None)
  for side in SIDES:
    _check(path, side, arrays, shape, columns)
  return arrays


def _array(folder: Path, path: Path, name: str, mode: Literal['r'] | None) -> np.ndarray:
  """Return one array; MedtlError where `path`, from which it was unpacked, lacks it."""
  try:
    return np.load(folder / f'{name}.npy', mmap_mode=mode)
  except FileNotFoundError:
    raise MedtlError(
      f'{path} lacks the array {name}; expected {NAMES} of train, val and test. Get it again'
    ) from None
  except Exception as error:  # numpy raises many kinds for a damaged .npy
    words = f'{type(error).__name__} while its array {name} was read'
    raise MedtlError(f'{path} is damaged: {words}; get it again') from error


def _check(
  path: Path, side: str, arrays: dict[str, np.ndarray], shape: tuple[int, ...], columns: int
) -> None:
  """Raise a MedtlError unless a side is what the set is.

  Pictures are uint8 [n, *shape], labels are integers [n, columns].
  """
  images = arrays[f'{side}_images']
  labels = arrays[f'{side}_labels']
  images_fit = images.dtype == np.uint8 and images.ndim > 0 and images.shape[1:] == shape
  labels_fit = labels.dtype.kind in 'iu' and labels.ndim == 2 and labels.shape[1] == columns
  if images_fit and labels_fit and len(images) == len(labels):
    return
  found_images = f'pictures {images.dtype} {images.shape}'
  found_labels = f'labels {labels.dtype} {labels.shape}'
  expected = f'uint8 (n, {", ".join(map(str, shape))}) and integers (n, {columns})'
  raise MedtlError(
    f'{path} is no such set: its {side} side has {found_images} and {found_labels}; '
    f'expected {expected}'
  )

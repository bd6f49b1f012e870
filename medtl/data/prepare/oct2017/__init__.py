"""OCT2017 (Kermany 2018), prepared as ArrayRecord from the publisher's unpacked folder.

It holds 109 309 retinal OCT B-scans. Prepare it once:

    python -m medtl.data.prepare.oct2017 FOLDER ROOT

and then set `config.data = dict(name='tfds.load', builder='oct2017', root=ROOT, …)`.
"""

import tempfile
from pathlib import Path

from medtl.core.types import MedtlError


def prepare(folder: str, root: str) -> Path:
  """Return ROOT/oct2017/1.0.0, written from the pictures of the publisher's folder.

  These are FOLDER/{train,val,test}/{CNV,DME,DRUSEN,NORMAL}/CLASS-PATIENT-NUMBER.jpeg; their bytes
  are kept as they are. A folder that is there already is not written again: MedtlError.
  """
  import tensorflow_datasets as tfds

  from medtl.data.prepare.oct2017.builder import Oct2017

  source = Path(folder).expanduser()
  if not source.is_dir():
    raise MedtlError(
      f'no folder {source}; expected the unpacked OCT2017 with its train, val and test'
    )
  builder = Oct2017(data_dir=str(Path(root).expanduser()), file_format='array_record')
  if builder.data_path.exists():
    raise MedtlError(f'{builder.data_path} is prepared already; delete it to prepare it anew')
  # TFDS makes a folder for downloads, though there are none
  with tempfile.TemporaryDirectory() as downloads:
    config = tfds.download.DownloadConfig(manual_dir=str(source))
    builder.download_and_prepare(download_dir=downloads, download_config=config)
  return Path(builder.data_path)

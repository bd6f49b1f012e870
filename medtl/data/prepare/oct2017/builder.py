"""The TFDS builder of OCT2017.

A file of its own: to define the class needs tensorflow_datasets, which is slow to import.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from medtl.core.types import MedtlError
from medtl.data.listing.patients import KERMANY

CLASSES = ('CNV', 'DME', 'DRUSEN', 'NORMAL')
# the publisher's folder → TFDS's name; version 3 has no val
SPLITS = {'train': 'train', 'val': 'validation', 'test': 'test'}
DESCRIPTION = (
  'Retinal optical coherence tomography B-scans (Spectralis, Heidelberg Engineering) of adults in '
  'four classes:\nchoroidal neovascularization, diabetic macular edema, drusen, normal. Patients '
  "come from the files' names."
)
CITATION = """@data{kermany2018large,
  author = {Kermany, Daniel and Zhang, Kang and Goldbaum, Michael},
  title = {Large Dataset of Labeled Optical Coherence Tomography (OCT) and Chest X-Ray Images},
  publisher = {Mendeley Data}, version = {3}, year = {2018}, doi = {10.17632/rscbjbr9sj.3}
}
@article{kermany2018identifying,
  author = {Kermany, Daniel S. and Goldbaum, Michael and Cai, Wenjia and others},
  title = {Identifying Medical Diagnoses and Treatable Diseases by Image-Based Deep Learning},
  journal = {Cell}, volume = {172}, number = {5}, pages = {1122--1131}, year = {2018}
}"""


class Oct2017(tfds.core.GeneratorBasedBuilder):
  """OCT2017: image (the file's bytes), label, patient, file (relative to its folder)."""

  VERSION = tfds.core.Version('1.0.0')
  MANUAL_DOWNLOAD_INSTRUCTIONS = (
    'Unpack OCT2017 (https://doi.org/10.17632/rscbjbr9sj); manual_dir is the folder that holds '
    'train.'
  )

  def _info(self) -> tfds.core.DatasetInfo:
    features = {
      'image': tfds.features.Image(shape=(None, None, 1), encoding_format='jpeg'),
      'label': tfds.features.ClassLabel(names=CLASSES),
      'patient': tfds.features.Text(),
      'file': tfds.features.Text(),
    }
    return tfds.core.DatasetInfo(
      builder=self,
      description=DESCRIPTION,
      citation=CITATION,
      license='CC BY 4.0',
      homepage='https://doi.org/10.17632/rscbjbr9sj',
      supervised_keys=('image', 'label'),
      features=tfds.features.FeaturesDict(features),
    )

  def _split_generators(
    self, dl_manager: tfds.download.DownloadManager
  ) -> dict[str, Iterator[tuple[str, dict[str, Any]]]]:
    folder = Path(dl_manager.manual_dir)
    sides = {split: side for side, split in SPLITS.items() if (folder / side).is_dir()}
    if 'train' not in sides:
      raise MedtlError(
        f'{folder} has no folder train; expected the one that holds train, val and test of OCT2017'
      )
    return {split: self._generate_examples(folder, side) for split, side in sides.items()}

  def _generate_examples(self, folder: Path, side: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for label in CLASSES:
      paths = sorted((folder / side / label).glob('*.jp*g'))
      if not paths:
        raise MedtlError(
          f'{folder / side / label} holds no .jpeg; expected every class in every split'
        )
      for path in paths:
        match = re.search(KERMANY, path.name)
        if not match or not path.name.startswith(label):
          raise MedtlError(f'{path}: expected a name {label}-PATIENT-NUMBER.jpeg')
        file = path.relative_to(folder).as_posix()
        image = path.read_bytes()
        yield file, {'image': image, 'label': label, 'patient': match[1], 'file': file}

"""Pictures a second that the host reads, decodes and resizes, by format and number of threads, against what a step eats."""

import argparse
import os
import tempfile
import time
from pathlib import Path

import jax
import numpy as np
from PIL import Image

from experiments.bench import ours
from experiments.bench.cases import CLASSES, MODELS, Case
from medtl import data
from medtl.data import batches
from medtl.run import run_data, run_folder

FORMS = {'jpg': 'JPEG', 'png': 'PNG, 16 bit', 'dcm': 'DICOM, 12 bit', 'rle': 'DICOM, 12 bit, RLE'}
COUNT, SOURCE, SIZE, BATCH = 256, 512, 224, 16  # pictures of SOURCE pixels a side become SIZE
OPS = f'resize({SIZE}, {SIZE})'


def written(folder, form):
  """Return the folder of COUNT smooth pictures in a format."""
  random = np.random.RandomState(0)
  for number in range(COUNT):
    path = Path(folder) / form / f'class{number % CLASSES}' / str(number)
    path.parent.mkdir(parents=True, exist_ok=True)
    small = random.randint(0, 255, (SOURCE // 16, SOURCE // 16), np.uint8)
    picture = np.asarray(Image.fromarray(small).resize((SOURCE, SOURCE), Image.Resampling.BICUBIC))
    if form == 'jpg':
      Image.fromarray(np.stack([picture] * 3, -1)).save(path.with_suffix('.jpg'), quality=90)
    elif form == 'png':
      Image.fromarray(picture.astype(np.uint16) * 257).save(path.with_suffix('.png'))
    else:
      slice_of(picture.astype(np.uint16) * 16, number, form).save_as(
        path.with_suffix('.dcm'), enforce_file_format=True
      )
  return Path(folder) / form


def slice_of(picture, number, form):
  """Return a DICOM file of 12-bit numbers, as they are or compressed."""
  from pydicom import Dataset
  from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, RLELossless, generate_uid

  made = Dataset()
  made.SOPClassUID, made.SOPInstanceUID, made.PatientID, made.Modality = (
    CTImageStorage,
    generate_uid(),
    f'P{number}',
    'CT',
  )
  made.set_pixel_data(picture, 'MONOCHROME2', 12)
  made.ensure_file_meta()
  made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
  if form == 'rle':
    made.compress(RLELossless)
  return made


def speed(dataset, workers):
  """Return pictures a second, in batches, each read anew."""
  list(batches.eval_batches(dataset.subset(np.arange(BATCH)), BATCH, workers=workers))
  begin = time.perf_counter()
  count = sum(
    int(batch.mask.sum()) for batch in batches.eval_batches(dataset, BATCH, workers=workers)
  )
  return count / (time.perf_counter() - begin)


def ahead(dataset, case, steps=12):
  """Return (pictures a second of training, the share of steps whose next batch was there before they ended).

  A CPU's step holds up the thread that would ask: there a batch counts that comes within a twentieth of a step after it.
  """
  config, program, state = ours.full(case)
  fed = run_data.train_batches(dataset, config)
  batch, early, begin = next(fed), 0, 0.0
  for number in range(steps + 1):
    start = time.perf_counter()
    state, logs = program(state, batch)
    asked = time.perf_counter()
    batch = jax.block_until_ready(next(fed))
    there, running = time.perf_counter(), not logs['loss'].is_ready()
    jax.block_until_ready(logs)
    early += number > 0 and (running or there - asked < 0.05 * (asked - start))
    begin = begin or time.perf_counter()  # the first step is not timed
  return steps * case.batch / (time.perf_counter() - begin), early / steps


def main(argv):
  """Print the table, then how training with these pictures goes."""
  parser = argparse.ArgumentParser(prog='python -m experiments.bench --input')
  parser.add_argument('--models', default='vit_s16,resnet50', help=', '.join(MODELS))
  parser.add_argument(
    '--npz',
    default='',
    help="the publisher's breastmnist.npz, or its folder; else npz is not measured",
  )
  flags = parser.parse_args(argv)
  threads = (1, 2, 4)
  with tempfile.TemporaryDirectory() as folder:
    os.environ['MEDTL_CACHE'] = f'{folder}/cache'
    heads = (
      f'{SOURCE} px → {SIZE} px, pictures a second',
      *(f'{count} threads' for count in threads),
    )
    print(f'| {" | ".join(heads)} |\n' + '|---' * len(heads) + '|')
    sets = {name: loaded(written(folder, form), keep_gb=0.0) for form, name in FORMS.items()}
    if flags.npz:
      whole = data.load(
        'medmnist', flag='breastmnist', root=flags.npz, ops=OPS, split={'by': 'none'}, keep_gb=0.0
      )['test']
      sets['npz, 28 px (BreastMNIST)'] = whole.subset(np.arange(COUNT))
    sets['kept decoded, memory-mapped'] = loaded(Path(folder) / 'jpg', keep_gb=8.0)
    for name, dataset in sets.items():
      cells = [f'{speed(dataset, count):.0f}' for count in threads]
      print(f'| {name} | {" | ".join(cells)} |', flush=True)
    print(
      '\n| training, float32 | pictures a second | of its steps had the next batch on the device before they ended |\n|---|---|---|'
    )
    for model in flags.models.split(','):
      eaten, early = ahead(
        sets[FORMS['jpg']], Case(model, 'float32', 'full', MODELS[model][1], SIZE, f'{folder}/jpg')
      )
      print(f'| {model}, reading jpg | {eaten:.1f} | {early:.0%} |', flush=True)
  print(
    f'\n{run_folder.hardware()}'
    + ('' if flags.npz else '; npz was not measured: --npz=BREASTMNIST')
  )


def loaded(folder, keep_gb):
  """Return the pictures of a folder, resized as they are read."""
  source = (
    dict(name='dicom', values='display') if folder.name in ('dcm', 'rle') else dict(name='folder')
  )
  return data.load(
    **source, root=str(folder), channels=3, ops=OPS, split={'by': 'none'}, keep_gb=keep_gb
  )['test']

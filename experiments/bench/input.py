"""Pictures a second that the host reads, decodes and resizes, against what a step eats."""

import argparse
import os
import tempfile
import time
from pathlib import Path

import jax
import numpy as np
from PIL import Image

from experiments.bench import cases, ours
from experiments.bench.cases import CLASSES, MODELS, Case
from medtl import data
from medtl.data import batches
from medtl.run import run_data, run_folder

FORMS = {'jpg': 'JPEG', 'png': 'PNG, 16 bit', 'dcm': 'DICOM, 12 bit', 'rle': 'DICOM, 12 bit, RLE'}
COUNT = 256  # pictures
SOURCE = 512  # their pixels a side …
SIZE = 224  # … and after resizing
BATCH = 16
THREADS = (1, 2, 4)
OPS = f'resize({SIZE}, {SIZE})'
TRAINING = (
  'training, float32',
  'pictures a second',
  'of its steps had the next batch on the device before they ended',
)


def written(folder, form):
  """Return the folder of COUNT smooth pictures in a format."""
  random = np.random.RandomState(0)
  for number in range(COUNT):
    path = Path(folder) / form / f'class{number % CLASSES}' / str(number)
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = random.randint(0, 255, (SOURCE // 16, SOURCE // 16), np.uint8)
    smooth = Image.fromarray(noise).resize((SOURCE, SOURCE), Image.Resampling.BICUBIC)
    picture = np.asarray(smooth)
    if form == 'jpg':
      colour = np.stack([picture] * 3, -1)
      Image.fromarray(colour).save(path.with_suffix('.jpg'), quality=90)
    elif form == 'png':
      deep = picture.astype(np.uint16) * 257
      Image.fromarray(deep).save(path.with_suffix('.png'))
    else:
      file = slice_of(picture.astype(np.uint16) * 16, number, form)
      file.save_as(path.with_suffix('.dcm'), enforce_file_format=True)
  return Path(folder) / form


def slice_of(picture, number, form):
  """Return a DICOM file of 12-bit numbers, as they are or compressed."""
  from pydicom import Dataset
  from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, RLELossless, generate_uid

  file = Dataset()
  file.SOPClassUID = CTImageStorage
  file.SOPInstanceUID = generate_uid()
  file.PatientID = f'P{number}'
  file.Modality = 'CT'
  file.set_pixel_data(picture, 'MONOCHROME2', 12)
  file.ensure_file_meta()
  file.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
  if form == 'rle':
    file.compress(RLELossless)
  return file


def speed(dataset, workers):
  """Return pictures a second, in batches, each read anew."""
  first = dataset.subset(np.arange(BATCH))
  list(batches.eval_batches(first, BATCH, workers=workers))
  begin = time.perf_counter()
  count = 0
  for batch in batches.eval_batches(dataset, BATCH, workers=workers):
    count += int(batch.mask.sum())
  return count / (time.perf_counter() - begin)


def ahead(dataset, case, steps=12):
  """Return (pictures a second of training, share of steps whose next batch was there in time).

  That is before the step ended. A CPU's step holds up the thread that would ask: there a batch
  counts that comes within a twentieth of a step after it.
  """
  config, program, state = ours.full(case)
  of_training = run_data.train_batches(dataset, config)
  batch = next(of_training)
  early = 0
  begin = 0.0
  for number in range(steps + 1):
    start = time.perf_counter()
    state, logs = program(state, batch)
    asked = time.perf_counter()
    batch = jax.block_until_ready(next(of_training))
    there = time.perf_counter()
    running = not logs['loss'].is_ready()
    jax.block_until_ready(logs)
    if number == 0:  # the first step is not timed
      begin = time.perf_counter()
    elif running or there - asked < 0.05 * (asked - start):
      early += 1
  seconds = time.perf_counter() - begin
  return steps * case.batch / seconds, early / steps


def main(argv):
  """Print the table, then how training with these pictures goes."""
  parser = argparse.ArgumentParser(prog='python -m experiments.bench --input')
  parser.add_argument('--models', default='vit_s16,resnet50', help=', '.join(MODELS))
  npz_help = "the publisher's breastmnist.npz, or its folder; else npz is not measured"
  parser.add_argument('--npz', default='', help=npz_help)
  flags = parser.parse_args(argv)
  with tempfile.TemporaryDirectory() as folder:
    os.environ['MEDTL_CACHE'] = f'{folder}/cache'
    title = f'{SOURCE} px → {SIZE} px, pictures a second'
    print(cases.table_head((title, *(f'{count} threads' for count in THREADS))))
    sets = {name: loaded(written(folder, form), keep_gb=0.0) for form, name in FORMS.items()}
    if flags.npz:
      sets['npz, 28 px (BreastMNIST)'] = breastmnist(flags.npz)
    sets['kept decoded, memory-mapped'] = loaded(Path(folder) / 'jpg', keep_gb=8.0)
    for name, dataset in sets.items():
      speeds = [f'{speed(dataset, count):.0f}' for count in THREADS]
      print(cases.table_line((name, *speeds)), flush=True)
    print('\n' + cases.table_head(TRAINING))
    for model in flags.models.split(','):
      _, batch = MODELS[model]
      case = Case(model, 'float32', 'full', batch, SIZE, f'{folder}/jpg')
      eaten, early = ahead(sets[FORMS['jpg']], case)
      cells = (f'{model}, reading jpg', f'{eaten:.1f}', f'{early:.0%}')
      print(cases.table_line(cells), flush=True)
  unmeasured = '' if flags.npz else '; npz was not measured: --npz=BREASTMNIST'
  print(f'\n{run_folder.hardware()}{unmeasured}')


def breastmnist(root):
  """Return COUNT pictures of the publisher's file."""
  source = dict(name='medmnist', flag='breastmnist', root=root)
  whole = data.load(**source, ops=OPS, split={'by': 'none'}, keep_gb=0.0)['test']
  return whole.subset(np.arange(COUNT))


def loaded(folder, keep_gb):
  """Return the pictures of a folder, resized as they are read."""
  source = {'name': 'folder'}
  if folder.name in ('dcm', 'rle'):
    source = {'name': 'dicom', 'values': 'display'}
  source |= {'root': str(folder), 'channels': 3}
  return data.load(**source, ops=OPS, split={'by': 'none'}, keep_gb=keep_gb)['test']

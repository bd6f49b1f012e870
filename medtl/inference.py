"""What a finished run says of pictures: its own again, another hospital's, or unlabelled ones. From its folder alone."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from medtl import build, check, data, disk, evaluate, runfolder
from medtl.checkpoint import Checkpoints
from medtl.log import console
from medtl.run import predictions
from medtl.types import MedtlError, Tree


def trained(config: ConfigDict, workdir: Path) -> tuple[Callable, Tree, Tree, dict[str, Any]]:
  """Return (jitted measure, params, extra, plan) of a finished run, from its folder alone."""
  plan = runfolder.read(workdir, 'plan.json')
  runfolder.read(workdir, 'numbers.json')
  if 'folds' in plan:
    raise MedtlError(f'{workdir} holds {len(plan["folds"])} nets, one for each fold; name one of them: --workdir={workdir / "fold0"}')
  checkpoints = Checkpoints(workdir / 'checkpoints')
  params, extra = checkpoints.params('best')
  checkpoints.close()
  return jax.jit(build.finished(config, plan)[1].measure), params, extra, plan


def evaluate_again(config: ConfigDict, workdir: Path, name: str) -> dict[str, Any]:
  """Predict the run's own data again, or with changed `config.data.…` all of another set, as `name`: external validation."""
  own = runfolder.config(workdir)
  measure, params, extra, plan = trained(config, workdir)
  if own.data.to_dict() == config.data.to_dict():
    if name != 'test':
      raise MedtlError(f"--name={name} is for other data, and data are the run's own; give --config.data.root=OTHER, or leave it out")
    predictions(measure, params, extra, data.load(**config.data.to_dict()), config, workdir)
    return runfolder.report(workdir)
  if name in ('val', 'test', 'train'):
    raise MedtlError(f"other data needs a name of its own (--name=hospital_b): predictions/{name}.npz are the run's own")
  other = data.load(**{**config.data.to_dict(), 'split': {'by': 'none'}})['test']
  if other.classes != tuple(plan['classes']):
    raise MedtlError(f'the run knows the classes {", ".join(plan["classes"])}; the other data has {", ".join(other.classes)}. '
                     'Set data.classes, or rename the folders')
  check.shape(other.fetch(0).x.shape, plan['shape'])
  predictions(measure, params, extra, {name: other}, config, workdir)
  runfolder.write_json(workdir / 'predictions' / f'{name}.json', dict(other.facts))
  return runfolder.report(workdir, name)


def predict(config: ConfigDict, workdir: Path, images: Path, output: Path) -> Path:
  """Write a csv with the class probabilities of every picture below `images`; return its path."""
  measure, params, extra, plan = trained(config, workdir)
  kept = {key: config.data[key] for key in ('exif', 'values', 'skip_unreadable') if key in config.data}
  source = 'dicom.load' if config.data.name.partition('.')[0] == 'dicom' else 'folder.load'
  pictures = data.load(source, root=str(images), label='', channels=plan['shape'][-1], ops=config.data.ops,
                       split={'by': 'none'}, **kept)['test']
  check.shape(pictures.fetch(0).x.shape, plan['shape'])
  found = evaluate.predict(measure, params, extra, build.once(pictures, config))
  head = ','.join(['file', 'predicted', *plan['classes']])
  lines = [','.join([f'"{file}"', plan['classes'][int(row.argmax())], *(f'{p:.6f}' for p in row)])
           for file, row in zip(pictures.table['file'], found.score, strict=True)]
  disk.write(output, '\n'.join([head, *lines]) + '\n')
  skipped = pictures.facts['unreadable']
  console.print(f'{pictures.size} pictures: {output}' + (f'; {len(skipped)} could not be read: {", ".join(skipped)}' if skipped else ''))
  return output

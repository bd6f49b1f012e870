"""What a finished run says of pictures: its own again, another hospital's, or unlabelled ones.

All that is needed of the run is its folder.
"""

import dataclasses
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from medtl import data
from medtl.core.types import Dataset, MedtlError, Task, Tree
from medtl.data.listing import mask_files
from medtl.evaluation import predictions
from medtl.run import (
  assemble,
  leakage,
  masks,
  other_data,
  readers,
  run_data,
  run_folder,
  run_report,
  validate,
)
from medtl.run.train import write_other_predictions, write_predictions
from medtl.runtime import files
from medtl.runtime.run_log import console
from medtl.training.checkpoints import Checkpoints

# keys of a run's data that also say how unlabelled pictures are read
READING = ('name', 'ops', 'draw', 'exif', 'masks', 'values', 'skip_unreadable', 'keep_gb')
# keys of a table that say nothing of how a row is read
ABOUT_ANSWERS = ('split', 'site', 'above', 'patient', 'partition', 'allow_leak', 'rename')
PLURAL = {'image': 'pictures', 'row': 'rows'}  # of what an example is called
Functions = tuple[Callable, Callable | None]  # measure and dense of a task
FORMULA = ('=', '+', '-', '@', '\t', '\r')  # a spreadsheet computes text that begins so


def load_trained(
  config: ConfigDict, workdir: Path
) -> tuple[Task, Functions, Tree, Tree, dict[str, Any]]:
  """Return (task, its jitted measure and dense, params, extra, plan) of a finished run.

  They are read from its folder alone.
  """
  plan = run_folder.read_plan(workdir)
  run_folder.read(workdir, 'numbers.json')
  if 'folds' in plan:
    raise MedtlError(
      f'{workdir} holds {len(plan["folds"])} nets, one for each fold; name one of '
      f'them: --workdir={shlex.quote(str(workdir / "fold0"))}'
    )
  checkpoints = Checkpoints(workdir / 'checkpoints')
  params, extra = checkpoints.params('best')
  checkpoints.close()
  task, measure, dense = assemble.trained_net(config, plan)
  return task, (measure, dense), params, extra, plan


def evaluate_again(
  config: ConfigDict, workdir: Path, name: str, command: str = ''
) -> dict[str, Any]:
  """Return the numbers of the run's own test side, predicted again, or of other data called `name`.

  The data are other ones where `config.data` is not the run's; then all of them are predicted, and
  their page tells the `command` that did it.
  """
  if run_folder.read_config(workdir).data.to_dict() == config.data.to_dict():
    return _own(config, workdir, name)
  return _other(config, workdir, name, command)


def _own(config: ConfigDict, workdir: Path, name: str) -> dict[str, Any]:
  if name != 'test':
    raise MedtlError(
      f"--name={name} is for other data, and data are the run's own; give "
      '--config.data.root=OTHER, or leave it out'
    )
  task, functions, params, extra, plan = load_trained(config, workdir)
  sides = data.load(**config.data.to_dict())
  overlap = _own_overlap(config, workdir, plan, sides)
  write_predictions(task, functions, params, extra, sides, config, workdir)
  leakage.keep(workdir, name, overlap)
  return run_report.write_report(workdir)


def _own_overlap(
  config: ConfigDict, workdir: Path, plan: Mapping[str, Any], sides: Mapping[str, Dataset]
) -> leakage.Overlap | None:
  """Return what the test side has in common with what the net has seen; None if that is unknown.

  Data that have changed are split anew; that pictures are then tested that trained the net is an
  error. The run of an older version has no record: one is made if its data are still the same.
  """
  keys, facts = config.data.to_dict(), sides['test'].facts
  unchanged = all(facts[key] == plan['data'].get(key) for key in ('hash', 'split_hash'))
  seen = leakage.read(workdir)
  if seen is None and not unchanged:
    return None
  if seen is None:
    from_run = config.model.weights.startswith('run:')
    seen = leakage.record(sides, keys, Path(plan['weights']['name']) if from_run else None)
    leakage.write(workdir, seen)
  overlap = leakage.compare(seen, sides['test'], keys)
  if not unchanged:
    leakage.stop(
      overlap,
      keys.get('allow_leak', False),
      'The data have changed since the run was trained, and were split anew: restore them',
    )
  return overlap


def _other(config: ConfigDict, workdir: Path, name: str, command: str) -> dict[str, Any]:
  if name in validate.OWN:
    raise MedtlError(
      'other data needs a name of its own (--name=hospital_b): '
      f"predictions/{name}.npz are the run's own"
    )
  own = run_folder.read_config(workdir).data.to_dict()
  task, functions, params, extra, plan = load_trained(config, workdir)
  other, keys = other_data.load(config.data.to_dict(), own, plan)
  if (np.asarray(other.table['y']) == -1).all() and not other.masks:
    raise MedtlError(
      "the other data have no labels (data.label=''), so that nothing can be "
      'measured; use the verb predict: '
      f'predict --workdir={shlex.quote(str(workdir))} --images={shlex.quote(keys["root"])}'
    )
  _same_data(workdir, name, other)
  overlap = _overlap(workdir, other, keys)
  if overlap is not None:
    leakage.stop(overlap, keys.get('allow_leak', False), 'Take them out of the other data')
  _say(other.facts['notes'])
  other = dataclasses.replace(other, facts={**other.facts, 'command': command})
  write_other_predictions(task, functions, params, extra, (name, other), config, workdir, overlap)
  return run_report.write_report(workdir, name)


def _overlap(workdir: Path, other: Dataset, keys: Mapping[str, Any]) -> leakage.Overlap | None:
  """Return what other data have in common with what the net has seen; None if that is unknown."""
  seen = leakage.read(workdir)
  return None if seen is None else leakage.compare(seen, other, keys)


def _same_data(workdir: Path, name: str, other: Dataset) -> None:
  """Raise where the name is taken by different data, whose page would be lost."""
  path = workdir / 'predictions' / f'{name}.json'
  if not path.exists():
    return
  before = run_folder.read(path.parent, path.name)
  if before['hash'] != other.facts['hash']:
    raise MedtlError(
      f'--name={name} is taken: {workdir / run_report.page_name(name)} tells of '
      f'{before["name"]}, with other pictures or labels than these; choose another '
      f'name, or remove {path}'
    )


def _say(notes: Sequence[str]) -> None:
  for note in notes:
    console.print(files.printable(f'· {note}'))


def predict(config: ConfigDict, workdir: Path, images: Path, output: Path) -> Path:
  """Write a csv with the class probabilities of one picture, or of a folder's; return its path.

  Its columns are file, predicted, and one for each class. What is printed is kept beside it, in
  `<output>.notes.txt`.
  """
  remarks = output.with_name(f'{output.name}.notes.txt')
  _replaceable(output, '"file', 'file,predicted')
  _replaceable(remarks, 'predictions of ')
  task, functions, params, extra, plan = load_trained(config, workdir)
  own = run_folder.read_config(workdir).data.to_dict()
  pictures, keys = other_data.load(_unlabelled(config, images), own, plan)
  measure, dense = functions
  predicted = predictions.predict(
    measure, params, extra, run_data.eval_batches(pictures, config), pictures.table
  )
  val = predictions.load(workdir / 'predictions' / 'val.npz').predictions
  answers = task.answers(
    predicted, pictures.table['file'].tolist(), plan['classes'], val=val, threshold=config.threshold
  )
  table = [answers.header, *answers.rows]
  replaced = '; it replaces an earlier one' if output.exists() else ''
  files.write(output, files.csv_text(table))
  drawn = []
  if dense is not None:
    folder = output.with_name(f'{output.stem}_masks')
    drawn = masks.write(folder, dense, params, extra, pictures, config, plan['classes'], images)
  notes = [
    *pictures.facts['notes'],
    *leakage.in_training(_overlap(workdir, pictures, keys)),
    *answers.notes,
    *drawn,
    *_doubtful(table),
  ]
  skipped = pictures.facts['unreadable']
  if skipped:
    notes.append(f'{len(skipped)} could not be read: {", ".join(skipped)}')
  _say(notes)
  count = f'{pictures.size} {PLURAL[run_report.noun(plan["shape"])]}'
  lines = [f'predictions of {count} in {images} by {workdir}', *notes]
  files.write(remarks, '\n- '.join(lines) + '\n')
  console.print(files.printable(f'{count}: {output}{replaced}'))
  return output


def _unlabelled(config: ConfigDict, images: Path) -> dict[str, Any]:
  """Return the data keys by which unlabelled pictures are read."""
  own = config.data.to_dict()
  if readers.reader(own['name']) == readers.TABLE:
    known = {key: value for key, value in own.items() if key not in ABOUT_ANSWERS}
    return {**known, 'root': str(images), 'label': ''}
  keys = {key: value for key, value in own.items() if key in READING}
  if readers.reader(keys['name']) == readers.READERS[readers.VOLUMES]:
    return {**keys, 'root': str(images), 'masks': ''}
  if keys.get('masks') == mask_files.TARGET:
    keys['masks'] = 'leave_out'
  if readers.reader(keys['name']) not in readers.READERS.values():
    keys['name'] = readers.READERS['pictures']
  return {**keys, 'root': str(images), 'label': ''}


def _replaceable(path: Path, *begins: str) -> None:
  """Raise where a file cannot be written, or holds something else than what is written to it."""
  if path.is_dir():
    raise MedtlError(
      f'--output={path} is a folder; expected a file, such as --output={path / "predictions.csv"}'
    )
  blocked = [parent for parent in path.parents if parent.exists() and not parent.is_dir()]
  if blocked:
    raise MedtlError(
      f'--output={path}: {blocked[0]} is a file and no folder; choose another --output'
    )
  if not path.exists() or not path.stat().st_size:
    return
  with open(path, 'rb') as file:
    begin = file.read(64).decode('utf-8', 'replace')
  if not begin.startswith(begins):
    raise MedtlError(
      f'{path} exists and was not written by predict; choose another --output, or remove it'
    )


def _doubtful(rows: Sequence[Sequence[Any]]) -> list[str]:
  """Return in words what other programs may misread in a csv.

  Names are written as they are, as whoever reads them joins tables by them.
  """
  texts = sorted({cell for row in rows for cell in row if isinstance(cell, str)})
  formulas = [text for text in texts if text.startswith(FORMULA)]
  broken = [text for text in texts if files.printable(text) != text]
  notes = []
  if formulas:
    notes.append(
      f'{len(formulas)} names begin with =, +, -, @ or a tab, which a spreadsheet may '
      f'take for a formula (first: {formulas[0]!r}): import their columns as text'
    )
  if broken:
    notes.append(
      f'{len(broken)} names are not UTF-8; what is not is written as \\udc80 … \\udcff '
      f'(first: {broken[0]})'
    )
  return notes

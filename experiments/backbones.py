"""Which of the checkpoints at hand is worth most on these pictures: probe, last child, control.

python -m medtl.main ablate --config=configs/oct_efficientnet.py --config.data.root=FOLDER \
  --sweep=experiments/backbones.py --folds --config.model.weights=CHECKPOINTS

CHECKPOINTS is a folder: every file in it is recognised as `medtl.main weights --check` does, and
takes part under its own name. The public checkpoints whose files are here already take part too;
--only=NAME,… leaves some out. Of each network three variants are trained: 'x probe' (the backbone
frozen), 'x last' (then its last child with the head, at a tenth of the rate) and 'x random' (the
control: the same backbone, frozen as chance drew it). The steps are those of the config's last
phase for each.
"""

from pathlib import Path

from medtl.core.types import MedtlError
from medtl.models import catalogue, identification
from medtl.models.pretrained import file_formats
from medtl.run import assemble
from medtl.studies import controls

AXIS = 'checkpoint, and what is trained on it'
AGAINST = ()
LIKE_IMAGENET = 3  # input channels: the others want other pictures


def sweep(config):
  """Yield (name, overrides)."""
  *_, (_, duration) = config.phases
  for name, changes in checkpoints(config.model.weights):
    own = assemble.with_changes(config, changes)
    count = assemble.count_children(own)
    probe = (('phases', (('depth(1.0)', duration),)),)
    last = (('depth(1.0)', duration), (f'depth({count - 1})', duration))
    slower = (('phases', last), ('lr', config.lr / 10))
    yield f'{name} probe', (*changes, *probe)
    yield f'{name} last', (*changes, *slower)
    yield f'{name} random', (*changes, *controls.random_frozen(own))


def control(name):
  """Return the variant that says what the checkpoint was worth to another."""
  return f'{name.rpartition(" ")[0]} random'


def checkpoints(folder):
  """Yield (name, changes of a config) of every checkpoint at hand, the folder's first."""
  if Path(folder).is_dir():
    for path in sorted(Path(folder).iterdir()):
      if path.name.endswith(file_formats.SUFFIXES):
        yield path.name.partition('.')[0], from_file(path)
  for entry in catalogue.entries():
    weights = entry.weights
    if weights.channels == LIKE_IMAGENET and catalogue.file_of(entry):
      model = dict(name=entry.network, weights=entry.name, **weights.keys)
      yield f'{entry.family}-{entry.name}', (('model', model),)


def from_file(path):
  """Return the changes of a config that begins with a file."""
  arrays = identification.read(path, lambda remark: None)
  finding = identification.identify(arrays)
  if finding.faults:
    raise MedtlError(
      f'{path} fits no network; python -m medtl.main weights --check {path} says why'
    )
  model = dict(name=finding.network, weights=str(path), **finding.keys)
  return (('model', model), ('truncate', finding.truncate))

"""Every key of a config, declared once: its default, its meaning, what it must be, what it changes.

All that is done with a key follows from this table: the defaults (configs/base.py), the checks
(`validate`), what two runs may share (`assemble.shares_weights`, `RunContext.program_cache_key`),
and how a run folder names, compares and reads configs (`run_folder`). A new key is an entry here.
"""

import copy
from collections.abc import Sequence
from typing import Annotated, Any, Literal, NamedTuple

from ml_collections import ConfigDict

from medtl.core.annotation import ABOVE_0, ABOVE_0_TO_1, FROM_0, FROM_1, Range

# What another value of a key changes.
Effect = Literal[
  'data',  # what is read
  'net',  # the net, or the weights that it begins with
  'draws',  # which of these weights chance draws
  'programs',  # compiled programs, whose cache keys do not hold the value
  'update',  # the compiled update of a phase, whose cache key holds the value
  'groups',  # which parameters move and how fast: Partition.key holds all that it compiles
  'course',  # how a run goes: what it sees, when it is evaluated, which checkpoint it keeps
  'report',  # numbers and pages made of predictions
  'place',  # where a run computes, not what: it may go on elsewhere, in the same folder
]
NOT_SHARED: tuple[Effect, ...] = (
  'data',
  'net',
  'programs',
)  # nothing is, where one of them differs
ALWAYS = object()  # the key is as old as run folders are
Factor = Annotated[float, FROM_0]


class Entries(NamedTuple):
  """What each entry of a tuple must be."""

  kinds: tuple  # an annotation for each of its values
  words: str  # the same in words, with an example
  least: int = 0  # number of entries


class Key(NamedTuple):
  """One key of a config."""

  default: Any
  meaning: str
  changes: tuple[Effect, ...]
  kind: Any = None  # an annotation; None = the type of the default
  within: Range | None = None  # of a number
  choices: tuple[str, ...] = ()  # of a text; () = any
  entries: Entries | None = None  # of a tuple
  before: Any = ALWAYS  # the value that does what runs did before there was this key

  @property
  def annotation(self) -> Any:
    """Return the kind of a value."""
    return type(self.default) if self.kind is None else self.kind


OFF_OR_MORE = Range('0 (off) or more', FROM_0.holds)

KEYS: dict[str, Key] = dict(
  seed=Key(
    0,
    'Weights of the head, order of the examples, augmentation.',
    changes=('draws', 'course'),
    within=Range('0 or more, below 2³²', lambda value: 0 <= value < 2**32),
  ),
  seeds=Key(
    1,
    'Runs of each variant of a study (ablate), from seed, seed + 1, …: their mean is reported.',
    changes=('report',),
    before=1,
  ),
  # What is read.
  data=Key(
    dict(name='phantom.load', split=dict(by='patient', folds=5, fold=0, seed=0), ops=''),
    'name: a function of medtl/data/sources; its own keys stand beside split and ops, and are '
    'checked against its signature. split.by: patient | image | publisher | site, or auto = the '
    "publisher's, else by patient where known, else by image. site: the column of the table that "
    "says where an example comes from; by='site' tests the sites of split.test, or number "
    'split.fold.',
    changes=('data',),
  ),
  streams=Key(
    {},
    'Further data that a task learns from beside its own, without labels: {name: keys as of '
    'data}; task.streams says which. Their training side is used; all without a split.',
    changes=('data',),
    before={},
  ),
  tests=Key(
    {},
    'Further data that the trained net is tested on, with labels: {name: keys as of data}. Their '
    'test side is used; all without a split. Console and page tell of them, and of the runs of '
    'compare on them; of several folds (--folds) each has its own page, and nothing is pooled.',
    changes=('report',),
    before={},
  ),
  # What computes.
  model=Key(
    dict(name='resnet.resnet18', weights=''),
    'name: a factory of medtl/models/backbones; weights: a name of its WEIGHTS, a file (or '
    "FILE::PART), 'run:<folder or config>', or '' for scratch.",
    changes=('net',),
  ),
  mean=Key(
    (),
    "Of the input (0 … 1), a number or one per channel; () = the checkpoint's, from scratch the "
    "data's.",
    changes=('net',),
    kind=Sequence[float],
  ),
  std=Key((), 'Likewise.', changes=('net',), kind=Sequence[float]),
  truncate=Key(
    0,
    'Children of the backbone that are kept, from the stem on; 0 = all (Ke et al. 2021, '
    'CheXtransfer).',
    changes=('net',),
    within=Range('0 (all children) or more', FROM_0.holds),
    before=0,
  ),
  head=Key(
    dict(name='linear'),
    'A head and its keys: a function of medtl/models/heads.py, or of another module of '
    "medtl/models ('decoders.unet').",
    changes=('net',),
  ),
  fresh=Key(
    ('head/.*',),
    'Leaves that do not come from the checkpoint.',
    changes=('net',),
    kind=Sequence[str],
  ),
  inflate=Key(
    '',
    "How a checkpoint of pictures serves a network of volumes (ndim=3): 'mean' repeats each kernel "
    "along the new axis and divides it (I3D), 'centre' fills its middle; '' = not at all.",
    changes=('net',),
    choices=('', 'mean', 'centre'),
    before='',
  ),
  slices=Key(
    0,
    '1, 3, 5 …: a network of pictures sees the slices of volumes, so many neighbouring ones as the '
    'channels of one picture (2.5-D); 0 = it sees volumes, or there are none.',
    changes=('net',),
    within=Range('0 (none) or odd', lambda value: value == 0 or (value % 2 == 1 and value > 0)),
    before=0,
  ),
  transfer=Key(
    'weights',
    "What comes from it: weights | mean_var = only each leaf's mean and variance (Raghu et al. "
    '2019).',
    changes=('net',),
    choices=('weights', 'mean_var'),
    before='weights',
  ),
  random_frozen=Key(
    False,
    'True = frozen children may be as chance drew them: the control of a transfer.',
    changes=('course',),
    before=True,
  ),
  # What is learned.
  task=Key(
    dict(name='classification', kind='multiclass', loss='softmax'),
    'name: a file of medtl/tasks, and its keys. kind: multiclass | binary | multilabel | ordinal, '
    'or auto = what the labels are of (never ordinal); loss: a function of '
    "medtl/training/losses.py, '' = the kind's own.",
    changes=('net',),
  ),
  augment=Key(
    '',
    "On the device, medtl/data/augmentation.py: 'flip | rotate(10) | mixup(0.2)'.",
    changes=('programs',),
  ),
  views=Key(
    0,
    '> 0: frozen children see so many fixed views of a picture, computed once; 0 = new ones each '
    'time.',
    changes=('course',),
    within=FROM_0,
    before=0,
  ),
  sampling=Key(
    '',
    "'' = every example once an epoch; 'balanced' = classes equally often.",
    changes=('course',),
    choices=('', 'balanced'),
  ),
  class_weights=Key(
    '',
    "'' | 'balanced' = inverse to the class's frequency, mean one.",
    changes=('update',),
    choices=('', 'balanced'),
  ),
  # What moves, and when.
  phases=Key(
    (('none', '10 epochs'),),
    'A tuple of (freeze, duration); freeze is a chain of medtl/training/freezing.py.',
    changes=('groups', 'course'),
    entries=Entries(
      (str, str | int),
      "(freeze, duration), for instance (('depth(1.0)', '3 epochs'),)",
      least=1,
    ),
  ),
  optimizer=Key('adamw', 'A function of medtl/training/optimizers.py.', changes=('programs',)),
  lr=Key(
    1e-3,
    'At the head, before its factor and the schedule.',
    changes=('groups',),
    within=ABOVE_0,
  ),
  head_lr=Key(1.0, 'Factor for the head.', changes=('groups',), within=ABOVE_0),
  lr_decay=Key(
    1.0,
    'Factor for each stage further from the head.',
    changes=('groups',),
    within=ABOVE_0_TO_1,
  ),
  decay=Key(1e-4, 'Weight decay of kernels.', changes=('groups',), within=FROM_0),
  norms=Key(
    (),
    '(regex on a BatchNorm path, train | source | target), see medtl/training/batch_statistics.py.',
    changes=('net', 'programs'),
    entries=Entries((str, str), "(regex, policy), for instance (('backbone/.*', 'train'),)"),
    before=(),
  ),
  norm_images=Key(
    128,
    'Of the training side: they give norms that train their statistics for an evaluation; 0 = '
    'averages.',
    changes=('course',),
    within=Range('0 (running averages) or more', FROM_0.holds),
    before=0,
  ),
  l2_sp=Key(
    0.0,
    'Pull of transferred weights back to where they began (Li et al. 2018); 0.0 = off.',
    changes=('groups',),
    within=OFF_OR_MORE,
    before=0.0,
  ),
  rules=Key(
    (),
    '(regex, factor on lr, decay) before the generated ones.',
    changes=('groups',),
    entries=Entries(
      (str, Factor, Factor),
      '(regex, learning-rate factor, weight decay), both numbers 0 or more, for instance '
      "(('.*/bias', 1.0, 0.0),)",
    ),
  ),
  schedule=Key(
    "cosine(warmup='5%')",
    'A function of medtl/training/schedules.py, over the whole run.',
    changes=('groups',),
  ),
  clip=Key(
    1.0,
    'Bound on the norm of the live gradients; 0.0 = off.',
    changes=('groups',),
    within=OFF_OR_MORE,
  ),
  ema=Key(
    0.0,
    'Decay of an average of the live leaves, used for evaluation; 0.0 = off.',
    changes=('groups',),
    within=Range('0 (off) or more, below 1', lambda value: 0 <= value < 1),
  ),
  batch=Key(
    32,
    "Examples a step; 'auto' = the most that fit (medtl/run/batch_size.py).",
    changes=('update', 'course'),
    within=FROM_1,
  ),
  remat=Key(
    (),
    "Regexes on children ('stage.*'): computed anew in the backward pass, to save memory (not on "
    'CPUs).',
    changes=('programs',),
    kind=Sequence[str],
    before=(),
  ),
  accumulate=Key(
    1,
    'Parts that a batch is cut into, to save memory.',
    changes=('update',),
    within=FROM_1,
  ),
  dtype=Key(
    'float32',
    'Of the computation: float32 | bfloat16; parameters are float32.',
    changes=('net', 'programs'),
    choices=('float32', 'bfloat16'),
  ),
  cache=Key(
    'auto',
    'Frozen children computed once: auto (where it pays) | head (its phases) | on | off.',
    changes=('course',),
    choices=('auto', 'head', 'on', 'off'),
  ),
  # When to look, and what to keep.
  monitor=Key(
    'auroc',
    'The validation metric that chooses the best checkpoint.',
    changes=('course',),
  ),
  every=Key('1 epochs', 'Evaluation and checkpoint.', changes=('course',), kind=str | int),
  patience=Key(
    0,
    'Evaluations without improvement that end a phase; 0 = never.',
    changes=('course',),
    within=Range('0 (never) or more', FROM_0.holds),
  ),
  resamples=Key(1000, 'Of the bootstrap.', changes=('report',), within=FROM_1),
  threshold=Key(
    'youden',
    'Chosen on validation: youden | at_sensitivity(0.95), medtl/evaluation/thresholds.py.',
    changes=('report',),
  ),
  # Where it runs.
  mesh=Key(
    dict(data=-1, fsdp=1),
    '-1 = what the other axis leaves of all devices. fsdp > 1 cuts parameters and optimizer state '
    'over so many devices.',
    changes=('place', 'programs'),
    before={'data': -1, 'fsdp': 1},
  ),
  shards=Key(
    (('.*', 'largest'),),
    "(regex on a parameter's path, 'largest' axis cut | 'copy'), medtl/runtime/sharding.py.",
    changes=('place', 'programs'),
    entries=Entries((str, str), "(regex, how), for instance (('.*', 'largest'),)"),
    before=(('.*', 'largest'),),
  ),
  workers=Key(2, 'Threads that read.', changes=('place',), within=FROM_0),
  hint=Key('', 'What to do where data or weights cannot be fetched.', changes=()),
  compare=Key(
    (),
    '(name, ((key, value), …)): runs beside this one that its report compares it with.',
    changes=('report',),
    entries=Entries(
      (str, Sequence),
      "(name, ((key, value), …)), for instance (('fast', (('lr', 0.01),)),)",
    ),
  ),
)


def defaults() -> ConfigDict:
  """Return the defaults of all keys, unlocked."""
  return ConfigDict({name: copy.deepcopy(key.default) for name, key in KEYS.items()})


def changing(*effects: Effect) -> list[str]:
  """Return the names of the keys that change at least one of these.

  >>> changing('place')
  ['mesh', 'shards', 'workers']
  """
  return [name for name, key in KEYS.items() if set(effects) & set(key.changes)]


def shareable() -> list[str]:
  """Return the names of the keys that runs may differ in and yet share data, net and programs.

  A key that is not declared is none of them.
  """
  kept_apart = changing(*NOT_SHARED)
  return [name for name in KEYS if name not in kept_apart]


def added() -> dict[str, Any]:
  """Return the keys that run folders of older versions lack, with the value that they ran with."""
  return {name: copy.deepcopy(key.before) for name, key in KEYS.items() if key.before is not ALWAYS}

"""Every key of a run, each with its meaning. A config starts from here, replaces whole components, and returns the result locked."""

from collections.abc import Callable

from ml_collections import ConfigDict

from medtl.core.expressions import did_you_mean
from medtl.core.types import MedtlError


def get_config() -> ConfigDict:
  """Return the defaults, locked: an unknown key is an error."""
  config = ConfigDict()
  config.seed = 0                       # weights of the head, order of the examples, augmentation
  config.seeds = 1                      # runs of each variant of a study (ablate), from seed, seed + 1, …: their mean is reported
  # What is read. name: a function of medtl/data/sources; its own keys stand beside split and ops, and are checked against its signature.
  # split.by: patient | image | publisher | site, or auto = the publisher's, else by patient where known, else by image.
  # site: the column of the table that says where an example comes from; by='site' tests the sites of split.test, or number split.fold.
  config.data = dict(name='phantom.load', split=dict(by='patient', folds=5, fold=0, seed=0), ops='')
  # Further data that a task learns from beside its own, without labels: {name: keys as of config.data};
  # task.streams says which. Their training side is used.
  config.streams = {}
  # Further data, with labels, that the trained net is tested on: {name: keys as of config.data}.
  # Their test side is used; without a split all of them. The runs of config.compare are tested too.
  config.tests = {}
  # What computes. name: a factory of medtl/models/backbones; weights: a name of its WEIGHTS, a file (or FILE::PART),
  # 'run:<folder or config>', or '' for scratch.
  config.model = dict(name='resnet.resnet18', weights='')
  config.mean = ()                      # of the input (0 … 1), a number or one per channel; () = the checkpoint's, from scratch the data's
  config.std = ()                       # likewise
  config.truncate = 0                   # children of the backbone that are kept, from the stem on; 0 = all (Ke et al. 2021, CheXtransfer)
  config.head = dict(name='linear')     # a function of medtl/models/heads.py and its keys
  config.fresh = ('head/.*',)           # leaves that do not come from the checkpoint
  config.transfer = 'weights'           # what comes from it: weights | mean_var = only each leaf's mean and variance (Raghu et al. 2019)
  config.random_frozen = False          # True = frozen children may be as chance drew them: the control of a transfer
  # What is learned. kind: multiclass | binary | multilabel | ordinal, or auto = what the labels are of (never ordinal);
  # loss: a function of medtl/training/losses.py, '' = the kind's own.
  config.task = dict(name='classification', kind='multiclass', loss='softmax')
  config.augment = ''                   # on the device, medtl/data/augmentation.py: 'flip | rotate(10) | mixup(0.2)'
  config.views = 0                      # > 0: frozen children see so many fixed views of a picture, computed once; 0 = new ones each time
  config.sampling = ''                  # '' = every example once an epoch; 'balanced' = classes equally often
  config.class_weights = ''             # '' | 'balanced' = inverse to the class's frequency, mean one
  # What moves, and when: a tuple of (freeze, duration).
  config.phases = (('none', '10 epochs'),)
  config.optimizer = 'adamw'            # medtl/training/optimizers.py
  config.lr = 1e-3                      # at the head, before its factor and the schedule
  config.head_lr = 1.0                  # factor for the head
  config.lr_decay = 1.0                 # factor for each stage further from the head
  config.decay = 1e-4                   # weight decay of kernels
  config.norms = ()  # (regex on a BatchNorm path, train | source | target), see training/batch_statistics.py
  config.norm_images = 128              # of the training side: they give norms that train their statistics for an evaluation; 0 = averages
  config.l2_sp = 0.0                    # pull of transferred weights back to where they began (Li et al. 2018); 0.0 = off
  config.rules = ()                     # (regex, factor on lr, decay) before the generated ones
  config.schedule = "cosine(warmup='5%')"   # medtl/training/schedules.py, over the whole run
  config.clip = 1.0                     # bound on the norm of the live gradients; 0.0 = off
  config.ema = 0.0                      # decay of an average of the live leaves, used for evaluation; 0.0 = off
  config.batch = 32                     # examples a step; 'auto' = the most that fit (medtl/run/batch_size.py)
  config.remat = ()                     # regexes on children ('stage.*'): computed anew in the backward pass, to save memory (not on CPUs)
  config.accumulate = 1                 # parts that a batch is cut into, to save memory
  config.dtype = 'float32'              # of the computation: float32 | bfloat16; parameters are float32
  config.cache = 'auto'                 # frozen children computed once: auto (where it pays) | head (its phases) | on | off
  # When to look, and what to keep.
  config.monitor = 'auroc'              # the validation metric that chooses the best checkpoint
  config.every = '1 epochs'             # evaluation and checkpoint
  config.patience = 0                   # evaluations without improvement that end a phase; 0 = never
  config.resamples = 1000               # of the bootstrap
  config.threshold = 'youden'           # chosen on validation: youden | at_sensitivity(0.95), medtl/evaluation/thresholds.py
  # Where it runs: -1 = what the other axis leaves of all devices. fsdp > 1 cuts parameters and optimizer state over so many devices.
  config.mesh = dict(data=-1, fsdp=1)
  config.shards = (('.*', 'largest'),)  # (regex on a parameter's path, 'largest' axis cut | 'copy'), medtl/runtime/sharding.py
  config.workers = 2                    # threads that read
  config.hint = ''                      # what to do where data or weights cannot be fetched
  config.compare = ()                   # (name, ((key, value), …)): runs beside this one that its report compares it with
  return config.lock()


def variant(word: str, **variants: Callable[[ConfigDict], None]) -> ConfigDict:
  """Return the defaults as the function of that name changes them ('published' is the one without a name)."""
  if (word or 'published') not in variants:
    raise MedtlError(f'the config has no variant {word!r}; {did_you_mean(word, variants)}')
  config = get_config()
  with config.unlocked():
    variants[word or 'published'](config)
  return config

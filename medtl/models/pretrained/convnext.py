"""Public checkpoints of ConvNeXt: what their publishers call the arrays, and where they lie."""

from typing import Any

from medtl.core.types import Weights
from medtl.models.pretrained.dialects import TORCH_LEAVES, Dialect

_BACKBONE = 'params/backbone'
_HEAD = 'params/head'


def _torchvision_children() -> tuple[tuple[str, str], ...]:
  """Return renames of features.0 … 7: the stem, then a stage and what halves it by turns."""
  stages = tuple(
    (rf'^features\.{2 * stage - 1}\.(\d+)\.', rf'{_BACKBONE}/stage{stage}/block\1/')
    for stage in range(1, 5)
  )
  downs: list[tuple[str, str]] = []
  for stage in range(2, 5):
    features = rf'^features\.{2 * stage - 2}'
    downs.append((rf'{features}\.0\.', f'{_BACKBONE}/stage{stage}/down_norm.'))
    downs.append((rf'{features}\.1\.', f'{_BACKBONE}/stage{stage}/down_conv.'))
  return (*stages, *downs)


def _numbered(pattern: str, path: str, stages: range = range(4)) -> tuple[tuple[str, str], ...]:
  """Return renames of stages, which a publisher counts from 0 and we from 1.

  Pattern and path have a place for the number.
  """
  return tuple((pattern.format(n), path.format(n + 1)) for n in stages)


_TORCHVISION = (
  (r'^features\.0\.0\.', f'{_BACKBONE}/stem/conv.'),
  (r'^features\.0\.1\.', f'{_BACKBONE}/stem/norm.'),
  *_torchvision_children(),
  (r'/block\.0\.', '/depthwise.'),
  (r'/block\.2\.', '/norm.'),
  (r'/block\.3\.', '/expand.'),
  (r'/block\.5\.', '/project.'),
  (r'/layer_scale$', '/scale'),
  (r'^classifier\.0\.', f'{_HEAD}/norm.'),
  (r'^classifier\.2\.', f'{_HEAD}/dense.'),
  *TORCH_LEAVES,
)
_TIMM = (  # timm's convnext_*, but those whose MLP is normalised (V2)
  (r'^stem\.0\.', f'{_BACKBONE}/stem/conv.'),
  (r'^stem\.1\.', f'{_BACKBONE}/stem/norm.'),
  *_numbered(r'^stages\.{}\.', f'{_BACKBONE}/stage{{}}/'),
  (r'/downsample\.0\.', '/down_norm.'),
  (r'/downsample\.1\.', '/down_conv.'),
  (r'/blocks\.(\d+)\.', r'/block\1/'),
  (r'/conv_dw\.', '/depthwise.'),
  (r'/mlp\.fc1\.', '/expand.'),
  (r'/mlp\.fc2\.', '/project.'),
  (r'/gamma$', '/scale'),
  (r'^head\.norm\.', f'{_HEAD}/norm.'),
  (r'^head\.fc\.', f'{_HEAD}/dense.'),
  *TORCH_LEAVES,
)
_META = (  # facebookresearch/ConvNeXt and DINOv3
  (r'^norms\..*', ''),  # DINOv3 has its one norm in a list as well
  (r'^downsample_layers\.0\.0\.', f'{_BACKBONE}/stem/conv.'),
  (r'^downsample_layers\.0\.1\.', f'{_BACKBONE}/stem/norm.'),
  *_numbered(r'^downsample_layers\.{}\.0\.', f'{_BACKBONE}/stage{{}}/down_norm.', range(1, 4)),
  *_numbered(r'^downsample_layers\.{}\.1\.', f'{_BACKBONE}/stage{{}}/down_conv.', range(1, 4)),
  *_numbered(r'^stages\.{}\.(\d+)\.', rf'{_BACKBONE}/stage{{}}/block\1/'),
  (r'/dwconv\.', '/depthwise.'),
  (r'/pwconv1\.', '/expand.'),
  (r'/pwconv2\.', '/project.'),
  (r'/gamma$', '/scale'),
  (r'^norm\.', f'{_HEAD}/norm.'),
  (r'^head\.', f'{_HEAD}/dense.'),
  *TORCH_LEAVES,
)
_HF = (  # transformers' ConvNextModel and ConvNextForImageClassification
  (r'^convnext\.', ''),
  (r'^embeddings\.patch_embeddings\.', f'{_BACKBONE}/stem/conv.'),
  (r'^embeddings\.layernorm\.', f'{_BACKBONE}/stem/norm.'),
  *_numbered(r'^encoder\.stages\.{}\.', f'{_BACKBONE}/stage{{}}/'),
  (r'/downsampling_layer\.0\.', '/down_norm.'),
  (r'/downsampling_layer\.1\.', '/down_conv.'),
  (r'/layers\.(\d+)\.', r'/block\1/'),
  (r'/dwconv\.', '/depthwise.'),
  (r'/layernorm\.', '/norm.'),
  (r'/pwconv1\.', '/expand.'),
  (r'/pwconv2\.', '/project.'),
  (r'/layer_scale_parameter$', '/scale'),
  (r'^layernorm\.', f'{_HEAD}/norm.'),
  (r'^classifier\.', f'{_HEAD}/dense.'),
  *TORCH_LEAVES,
)
_KERAS = (  # keras.applications, whose layers begin with the name of the model
  # what normalises pictures of 0 … 255 inside the model is our `Net`'s mean and std
  (r'^.*_prestem_normalization/.*', ''),
  (r'^.*_stem_conv/', f'{_BACKBONE}/stem/conv/'),
  (r'^.*_stem_layernorm/', f'{_BACKBONE}/stem/norm/'),
  *_numbered(r'^.*_stage_{}_block_(\d+)_', rf'{_BACKBONE}/stage{{}}/block\1/'),
  *[
    (rf'^.*_downsampling_layernorm_{n}/', f'{_BACKBONE}/stage{n + 2}/down_norm/') for n in range(3)
  ],
  *[(rf'^.*_downsampling_conv_{n}/', f'{_BACKBONE}/stage{n + 2}/down_conv/') for n in range(3)],
  (r'/depthwise_conv/', '/depthwise/'),
  (r'/layernorm/', '/norm/'),
  (r'/pointwise_conv_1/', '/expand/'),
  (r'/pointwise_conv_2/', '/project/'),
  (r'/layer_scale/.*', '/scale'),
  (r'^.*_head_layernorm/', f'{_HEAD}/norm/'),
  (r'^.*_head_dense/', f'{_HEAD}/dense/'),
  (r'norm/gamma$', 'norm/scale'),
  (r'norm/beta$', 'norm/bias'),
)
RENAMES = {
  'torchvision': Dialect('torch', _TORCHVISION),
  'timm': Dialect('torch', _TIMM),
  'meta': Dialect('torch', _META),
  'hf': Dialect('torch', _HF),
  'keras': Dialect('keras', _KERAS),
}


def _torchvision(name: str) -> Weights:
  """Return a torchvision checkpoint; its file name ends with the first digits of its sha256."""
  network, _, digits = name.rpartition('-')
  return Weights(
    f'https://download.pytorch.org/models/{name}.pth',
    digits,
    network=network,
    head_norm='layer',
    trained_on='ImageNet-1k',
    tried='fixture',
    licence='BSD-3-Clause',
    note="github.com/pytorch/vision, torchvision/models/convnext.py; the repository's licence",
  )


def _keras(size: str, sha256: str, trained_on: str = 'ImageNet-1k') -> Weights:
  """Return a Keras checkpoint with its head."""
  folder = 'https://storage.googleapis.com/tensorflow/keras-applications/convnext'
  return Weights(
    f'{folder}/convnext_{size}.h5',
    sha256,
    network=f'convnext_{size}',
    head_norm='layer',
    trained_on=trained_on,
    tried='fixture',
    note='github.com/keras-team/keras, keras/src/applications/convnext.py; no licence is stated',
  )


def _meta(name: str, trained_on: str, classes: int = 1000, size: int = 224) -> Weights:
  """Return a checkpoint of the authors."""
  network = '_'.join(name.split('_')[:2])
  return Weights(
    f'https://dl.fbaipublicfiles.com/convnext/{name}.pth',
    network=network,
    head_norm='layer',
    size=size,
    classes=classes,
    trained_on=trained_on,
    tried='fixture',
    licence='Apache-2.0',
    note='github.com/huggingface/pytorch-image-models, timm/models/convnext.py, with the licence '
    'of its copies; no checksum is published',
  )


def _timm(name: str, **more: Any) -> Weights:
  """Return a checkpoint that timm's author trained."""
  return Weights(
    f'https://huggingface.co/timm/{name}/resolve/main/model.safetensors',
    network=name.split('.')[0],
    head_norm='layer',
    tried='fixture',
    licence='Apache-2.0',
    note='github.com/huggingface/pytorch-image-models, timm/models/convnext.py; no checksum is '
    'published',
    **more,
  )


def _dinov3(size: str, digits: str) -> Weights:
  """Return a checkpoint of DINOv3, which its publisher gives to those who ask for it."""
  file = f'dinov3_convnext_{size}_pretrain_lvd1689m-{digits}.pth'
  return Weights(
    '',
    digits,
    network=f'convnext_{size}',
    head_norm='layer',
    page='https://github.com/facebookresearch/dinov3',
    classes=0,
    licence='DINOv3 License',
    terms='gated',
    trained_on='LVD-1689M, without labels',
    note=f'github.com/facebookresearch/dinov3, dinov3/hub/backbones.py: {file}',
  )


_22K = 'ImageNet-22k'
_FINE = 'ImageNet-22k, then ImageNet-1k'
WEIGHTS = {
  'torchvision_convnext_tiny': _torchvision('convnext_tiny-983f1562'),
  'torchvision_convnext_small': _torchvision('convnext_small-0c510722'),
  'torchvision_convnext_base': _torchvision('convnext_base-6075fbad'),
  'keras_convnext_tiny': _keras(
    'tiny', '8ae6e78ce2933352b1ef4008e6dd2f17bc40771563877d156bc6426c7cf503ff'
  ),
  'keras_convnext_small': _keras(
    'small', 'ce1277d8f1ee5a0ef0e171469089c18f5233860ceaf9b168049cb9263fd7483c'
  ),
  'keras_convnext_base': _keras(
    'base', '52cbb006d3dadd03f6e095a8ca1aca47aecdd75acb4bc74bce1f5c695d0086e6', _FINE
  ),
  'convnext_tiny_1k': _meta('convnext_tiny_1k_224_ema', 'ImageNet-1k'),
  'convnext_small_1k': _meta('convnext_small_1k_224_ema', 'ImageNet-1k'),
  'convnext_base_1k': _meta('convnext_base_1k_224_ema', 'ImageNet-1k'),
  'convnext_tiny_22k': _meta('convnext_tiny_22k_224', _22K, 21841),
  'convnext_small_22k': _meta('convnext_small_22k_224', _22K, 21841),
  'convnext_base_22k': _meta('convnext_base_22k_224', _22K, 21841),
  'convnext_tiny_22k_1k': _meta('convnext_tiny_22k_1k_224', _FINE),
  'convnext_small_22k_1k': _meta('convnext_small_22k_1k_224', _FINE),
  'convnext_base_22k_1k': _meta('convnext_base_22k_1k_224', _FINE),
  'convnext_tiny_22k_1k_384': _meta('convnext_tiny_22k_1k_384', _FINE, size=384),
  'convnext_small_22k_1k_384': _meta('convnext_small_22k_1k_384', _FINE, size=384),
  'convnext_base_22k_1k_384': _meta('convnext_base_22k_1k_384', _FINE, size=384),
  'timm_convnext_tiny_12k': _timm('convnext_tiny.in12k', classes=11821, trained_on='ImageNet-12k'),
  'timm_convnext_small_12k': _timm(
    'convnext_small.in12k', classes=11821, trained_on='ImageNet-12k'
  ),
  'timm_convnext_tiny_12k_1k': _timm(
    'convnext_tiny.in12k_ft_in1k', trained_on='ImageNet-12k, then ImageNet-1k'
  ),
  'timm_convnext_small_12k_1k': _timm(
    'convnext_small.in12k_ft_in1k', trained_on='ImageNet-12k, then ImageNet-1k'
  ),
  'dinov3_convnext_tiny': _dinov3('tiny', '21b726bb'),
  'dinov3_convnext_small': _dinov3('small', '296db49d'),
  'dinov3_convnext_base': _dinov3('base', '801f2ba9'),
}

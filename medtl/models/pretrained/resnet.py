"""Public checkpoints of ResNets: what their publishers call the arrays, and where they lie."""

from medtl.core.types import Weights
from medtl.models.pretrained.port import Dialect

_HALF = (0.5, 0.5, 0.5)  # inputs from -1 to 1
_CAFFE = (
  (123.68 / 255, 116.779 / 255, 103.939 / 255),
  (1 / 255, 1 / 255, 1 / 255),
)  # 0 … 255 minus a mean; BGR, which the port turns
_BLOCKS = (  # torchvision's words inside a block
  (r'/downsample\.0\.', '/shortcut_conv.'),
  (r'/downsample\.1\.', '/shortcut_norm.'),
  (r'/bn(\d)\.', r'/norm\1.'),
)
_LEAVES = (  # last of all: the publishers' words for leaves, and our collections
  (r'[./]running_mean$|/moving_mean$', '/mean'),
  (r'[./]running_var$|/moving_variance$', '/var'),
  (r'norm(\d?)([./])(weight|gamma)$', r'norm\1/scale'),
  (r'\.weight$', '/kernel'),
  (r'\.bias$|/beta$', '/bias'),
  (r'^(backbone/.*/)(mean|var)$', r'batch_stats/\1\2'),
  (r'^(backbone|head)/', r'params/\1/'),
  (r'.*num_batches_tracked$', ''),
)


def _numbered(pattern: str, path: str, count: int) -> tuple[tuple[str, str], ...]:
  """Return renames of what a publisher counts from 1 and we from 0; `{i}` is theirs, `{n}` ours."""
  return tuple(
    (pattern.replace('{i}', str(n + 1)), path.replace('{n}', str(n))) for n in range(count)
  )


RENAMES = {
  'torchvision': Dialect(
    'torch',
    (  # and timm's resnet*
      (r'^conv1\.', 'backbone/stem/conv.'),
      (r'^bn1\.', 'backbone/stem/norm.'),
      (r'^layer(\d)\.(\d+)\.', r'backbone/stage\1/block\2/'),
      (r'^fc\.', 'head/dense.'),
      *_BLOCKS,
      *_LEAVES,
    ),
  ),
  'sequential': Dialect(
    'torch',
    (  # Sequential(*torchvision's children)
      (r'^0\.weight$', 'backbone/stem/conv.weight'),
      (r'^1\.', 'backbone/stem/norm.'),
      *[(rf'^{n + 3}\.(\d+)\.', rf'backbone/stage{n}/block\1/') for n in range(1, 5)],
      *_BLOCKS,
      *_LEAVES,
    ),
  ),
  'hf': Dialect(
    'torch',
    (  # transformers' ResNetModel and ResNetForImageClassification
      (r'^resnet\.', ''),
      (r'^embedder\.embedder\.convolution\.', 'backbone/stem/conv.'),
      (r'^embedder\.embedder\.normalization\.', 'backbone/stem/norm.'),
      *[
        (rf'^encoder\.stages\.{n}\.layers\.(\d+)\.', rf'backbone/stage{n + 1}/block\1/')
        for n in range(4)
      ],
      (r'/shortcut\.convolution\.', '/shortcut_conv.'),
      (r'/shortcut\.normalization\.', '/shortcut_norm.'),
      *[(rf'/layer\.{n}\.convolution\.', f'/conv{n + 1}.') for n in range(3)],
      *[(rf'/layer\.{n}\.normalization\.', f'/norm{n + 1}.') for n in range(3)],
      (r'^classifier\.1\.', 'head/dense.'),
      *_LEAVES,
    ),
  ),
  'keras': Dialect(
    'keras',
    (  # keras.applications since 2.2: version='v1', bias=True, epsilon=1.001e-5
      (r'^conv1_conv/', 'backbone/stem/conv/'),
      (r'^conv1_bn/', 'backbone/stem/norm/'),
      *[
        rename
        for stage in range(1, 5)
        for rename in _numbered(
          rf'^conv{stage + 1}_block{{i}}_', f'backbone/stage{stage}/block{{n}}/', 36
        )
      ],
      (r'/0_conv/', '/shortcut_conv/'),
      (r'/0_bn/', '/shortcut_norm/'),
      (r'/(\d)_conv/', r'/conv\1/'),
      (r'/(\d)_bn/', r'/norm\1/'),
      (r'^predictions/', 'head/dense/'),
      *_LEAVES,
    ),
    *_CAFFE,
    'bgr',
  ),
  'keras_2015': Dialect(
    'keras',
    (  # keras.applications' first ResNet50: version='v1', bias=True, epsilon=1e-3
      (r'^conv1/', 'backbone/stem/conv/'),
      (r'^bn_conv1/', 'backbone/stem/norm/'),
      *[
        (rf'^(res|bn){stage + 1}{letter}_branch', rf'backbone/stage{stage}/block{block}/\1')
        for stage in range(1, 5)
        for block, letter in enumerate('abcdef')
      ],
      (r'/res1/', '/shortcut_conv/'),
      (r'/bn1/', '/shortcut_norm/'),
      *[(f'/(res)2{letter}/', f'/conv{n}/') for n, letter in enumerate('abc', 1)],
      *[(f'/(bn)2{letter}/', f'/norm{n}/') for n, letter in enumerate('abc', 1)],
      (r'^fc1000/', 'head/dense/'),
      *_LEAVES,
    ),
    *_CAFFE,
    'bgr',
  ),
  'bit': Dialect(
    'keras',
    (  # google-research/big_transfer, .npz
      (r'^resnet/root_block/', 'backbone/stem/'),
      (r'^resnet/group_norm/', 'backbone/norm/'),
      (r'^resnet/head/conv2d/', 'head/dense/'),
      *[
        rename
        for stage in range(1, 5)
        for rename in _numbered(
          rf'^resnet/block{stage}/unit0?{{i}}/', f'backbone/stage{stage}/block{{n}}/', 36
        )
      ],
      (r'/a/proj/', '/shortcut_'),
      *[(f'/{letter}/', f'/{n}/') for n, letter in enumerate('abc', 1)],
      (r'/(\d)/group_norm/', r'/norm\1/'),
      (r'/(\d)/standardized_conv2d/', r'/conv\1/'),
      (r'/(shortcut_)?standardized_conv2d/', r'/\1conv/'),
      *_LEAVES,
    ),
    _HALF,
    _HALF,
    standardised=True,
  ),
  'bit_timm': Dialect(
    'torch',
    (  # timm's resnetv2_*_bit
      (r'^stem\.conv\.', 'backbone/stem/conv.'),
      *[(rf'^stages\.{n}\.blocks\.(\d+)\.', rf'backbone/stage{n + 1}/block\1/') for n in range(4)],
      (r'/downsample\.conv\.', '/shortcut_conv.'),
      (r'^norm\.', 'backbone/norm.'),
      (r'^head\.fc\.', 'head/dense.'),
      *_LEAVES,
    ),
    _HALF,
    _HALF,
    standardised=True,
  ),
  'bit_hf': Dialect(
    'torch',
    (  # transformers' BitModel and BitForImageClassification
      (r'^bit\.', ''),
      (r'^embedder\.convolution\.', 'backbone/stem/conv.'),
      *[
        (rf'^encoder\.stages\.{n}\.layers\.(\d+)\.', rf'backbone/stage{n + 1}/block\1/')
        for n in range(4)
      ],
      (r'/downsample\.conv\.', '/shortcut_conv.'),
      (r'^norm\.', 'backbone/norm.'),
      (r'^classifier\.1\.', 'head/dense.'),
      *_LEAVES,
    ),
    _HALF,
    _HALF,
    standardised=True,
  ),
}


def _torchvision(name: str, source: str) -> Weights:
  """Return a torchvision checkpoint; its file name carries the first digits of its sha256 (torch.hub checks them)."""
  return Weights(
    f'https://download.pytorch.org/models/{name}.pth',
    name.rpartition('-')[2],
    head=r'fc\..*',
    stem='conv1.weight',
    licence='BSD-3-Clause',
    note=f"github.com/pytorch/vision, {source}; the repository's licence",
  )


def _keras(depth: int, md5: str) -> Weights:
  """Return a Keras checkpoint, for version='v1', bias=True, epsilon=1.001e-5."""
  return Weights(
    f'https://storage.googleapis.com/tensorflow/keras-applications/resnet/resnet{depth}_weights_tf_dim_ordering_tf_kernels.h5',
    mean=_CAFFE[0],
    std=_CAFFE[1],
    head='predictions/.*',
    stem='conv1_conv/kernel',
    note=f'github.com/keras-team/keras, keras/src/applications/resnet.py, which gives md5 {md5}; licence not stated there',
  )


def _bit(name: str, classes: int) -> Weights:
  """Return a BiT checkpoint."""
  return Weights(
    f'https://storage.googleapis.com/bit_models/{name}.npz',
    mean=_HALF,
    std=_HALF,
    classes=classes,
    head='resnet/head/.*',
    stem='resnet/root_block/standardized_conv2d/kernel',
    licence='Apache-2.0',
    note="github.com/google-research/big_transfer, README.md and the files' headers; no checksum is published",
  )


_PULL, _ENUM = 'pull request 3620', 'torchvision/models/resnet.py (IMAGENET1K_V2)'
WEIGHTS = {
  'torchvision_resnet18': _torchvision('resnet18-f37072fd', _PULL),
  'torchvision_resnet34': _torchvision('resnet34-b627a593', _PULL),
  'torchvision_resnet50': _torchvision('resnet50-0676ba61', _PULL),
  'torchvision_resnet101': _torchvision('resnet101-63fe2227', _PULL),
  'torchvision_resnet152': _torchvision('resnet152-394f9c45', _PULL),
  'torchvision_resnet50_v2': _torchvision('resnet50-11ad3fa6', _ENUM),
  'torchvision_resnet101_v2': _torchvision('resnet101-cd907fc2', _ENUM),
  'torchvision_resnet152_v2': _torchvision('resnet152-f82ba261', _ENUM),
  'keras_resnet50': _keras(50, '2cb95161c43110f7111970584f804107'),
  'keras_resnet101': _keras(101, 'f1aeb4b969a6efcfb50fad2f0c20cfc5'),
  'keras_resnet152': _keras(152, '100835be76be38e30d865e96f2aaae62'),
  'bit_m_r50x1': _bit('BiT-M-R50x1', 21843),
  'bit_s_r50x1': _bit('BiT-S-R50x1', 1000),
  'bit_m_r101x1': _bit('BiT-M-R101x1', 21843),
}

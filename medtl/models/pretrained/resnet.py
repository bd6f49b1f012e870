"""Public checkpoints of ResNets: what their publishers call the arrays, and where they lie."""

from medtl.core.types import Weights
from medtl.models.pretrained.dialects import Dialect

Renames = tuple[tuple[str, str], ...]

_HALF = (0.5, 0.5, 0.5)  # mean and std of inputs from -1 to 1
_ZERO = (0.0,)  # mean and std of inputs that are taken as they are
_ONE = (1.0,)
# Keras' inputs are 0 … 255 minus a mean, in the order BGR, which the port turns
_CAFFE_MEAN = (123.68 / 255, 116.779 / 255, 103.939 / 255)
_CAFFE_STD = (1 / 255, 1 / 255, 1 / 255)
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


def _stages(pattern: str, first: int) -> Renames:
  """Return renames of four stages, which a publisher counts from `first`.

  `pattern` has a place for the stage's number, and one group: the block's, counted from 0.
  """
  return tuple((pattern.format(first + n), rf'backbone/stage{n + 1}/block\1/') for n in range(4))


def _blocks(pattern: str, first: int) -> Renames:
  """Return renames of the blocks of four stages, which a publisher counts from 1.

  `pattern` has places for {stage}, counted from `first`, and {block}.
  """
  renames: list[tuple[str, str]] = []
  for stage in range(4):
    for block in range(36):
      name = pattern.format(stage=first + stage, block=block + 1)
      renames.append((name, f'backbone/stage{stage + 1}/block{block}/'))
  return tuple(renames)


def _lettered_blocks() -> Renames:
  """Return renames of res2a_branch, bn2a_branch, …: stages counted from 2, blocks by letters."""
  renames: list[tuple[str, str]] = []
  for stage in range(1, 5):
    for block, letter in enumerate('abcdef'):
      name = rf'^(res|bn){stage + 1}{letter}_branch'
      renames.append((name, rf'backbone/stage{stage}/block{block}/\1'))
  return tuple(renames)


_TORCHVISION_BACKBONE = (
  (r'^conv1\.', 'backbone/stem/conv.'),
  (r'^bn1\.', 'backbone/stem/norm.'),
  (r'^layer(\d)\.(\d+)\.', r'backbone/stage\1/block\2/'),
  *_BLOCKS,
)
_TORCHVISION = (  # and timm's resnet*, TorchXRayVision's
  *_TORCHVISION_BACKBONE,
  (r'^fc\.', 'head/dense.'),
  *_LEAVES,
)
_MEDICALNET = (  # torchvision's; its training leaves a decoder for masks in the file
  *_TORCHVISION_BACKBONE,
  (r'^conv_seg\..*', ''),
  *_LEAVES,
)
_MERLIN = (  # torchvision's; what it is told by diagnoses is its classifier, 1×1×1 convolutions
  *_TORCHVISION_BACKBONE,
  (r'^classifier\.', 'head/dense.'),
  (r'^contrastive_head\..*', ''),
  *_LEAVES,
)
_SEQUENTIAL = (  # Sequential(*torchvision's children)
  (r'^0\.weight$', 'backbone/stem/conv.weight'),
  (r'^1\.', 'backbone/stem/norm.'),
  *_stages(r'^{}\.(\d+)\.', 4),
  *_BLOCKS,
  *_LEAVES,
)
_HF = (  # transformers' ResNetModel and ResNetForImageClassification
  (r'^resnet\.', ''),
  (r'^embedder\.embedder\.convolution\.', 'backbone/stem/conv.'),
  (r'^embedder\.embedder\.normalization\.', 'backbone/stem/norm.'),
  *_stages(r'^encoder\.stages\.{}\.layers\.(\d+)\.', 0),
  (r'/shortcut\.convolution\.', '/shortcut_conv.'),
  (r'/shortcut\.normalization\.', '/shortcut_norm.'),
  *[(rf'/layer\.{n}\.convolution\.', f'/conv{n + 1}.') for n in range(3)],
  *[(rf'/layer\.{n}\.normalization\.', f'/norm{n + 1}.') for n in range(3)],
  (r'^classifier\.1\.', 'head/dense.'),
  *_LEAVES,
)
_KERAS = (  # keras.applications since 2.2: version='v1', bias=True, epsilon=1.001e-5
  (r'^conv1_conv/', 'backbone/stem/conv/'),
  (r'^conv1_bn/', 'backbone/stem/norm/'),
  *_blocks(r'^conv{stage}_block{block}_', 2),
  (r'/0_conv/', '/shortcut_conv/'),
  (r'/0_bn/', '/shortcut_norm/'),
  (r'/(\d)_conv/', r'/conv\1/'),
  (r'/(\d)_bn/', r'/norm\1/'),
  (r'^predictions/', 'head/dense/'),
  *_LEAVES,
)
_KERAS_2015 = (  # keras.applications' first ResNet50: version='v1', bias=True, epsilon=1e-3
  (r'^conv1/', 'backbone/stem/conv/'),
  (r'^bn_conv1/', 'backbone/stem/norm/'),
  *_lettered_blocks(),
  (r'/res1/', '/shortcut_conv/'),
  (r'/bn1/', '/shortcut_norm/'),
  *[(f'/(res)2{letter}/', f'/conv{n}/') for n, letter in enumerate('abc', 1)],
  *[(f'/(bn)2{letter}/', f'/norm{n}/') for n, letter in enumerate('abc', 1)],
  (r'^fc1000/', 'head/dense/'),
  *_LEAVES,
)
_BIT = (  # google-research/big_transfer, .npz
  (r'^resnet/root_block/', 'backbone/stem/'),
  (r'^resnet/group_norm/', 'backbone/norm/'),
  (r'^resnet/head/conv2d/', 'head/dense/'),
  *_blocks(r'^resnet/block{stage}/unit0?{block}/', 1),
  (r'/a/proj/', '/shortcut_'),
  *[(f'/{letter}/', f'/{n}/') for n, letter in enumerate('abc', 1)],
  (r'/(\d)/group_norm/', r'/norm\1/'),
  (r'/(\d)/standardized_conv2d/', r'/conv\1/'),
  (r'/(shortcut_)?standardized_conv2d/', r'/\1conv/'),
  *_LEAVES,
)
_BIT_TIMM = (  # timm's resnetv2_*_bit
  (r'^stem\.conv\.', 'backbone/stem/conv.'),
  *_stages(r'^stages\.{}\.blocks\.(\d+)\.', 0),
  (r'/downsample\.conv\.', '/shortcut_conv.'),
  (r'^norm\.', 'backbone/norm.'),
  (r'^head\.fc\.', 'head/dense.'),
  *_LEAVES,
)
_BIT_HF = (  # transformers' BitModel and BitForImageClassification
  (r'^bit\.', ''),
  (r'^embedder\.convolution\.', 'backbone/stem/conv.'),
  *_stages(r'^encoder\.stages\.{}\.layers\.(\d+)\.', 0),
  (r'/downsample\.conv\.', '/shortcut_conv.'),
  (r'^norm\.', 'backbone/norm.'),
  (r'^classifier\.1\.', 'head/dense.'),
  *_LEAVES,
)
RENAMES = {
  'torchvision': Dialect('torch', _TORCHVISION),
  'medicalnet': Dialect('torch', _MEDICALNET, _ZERO, _ONE),
  'merlin': Dialect('torch', _MERLIN, _ZERO, _ONE),
  'sequential': Dialect('torch', _SEQUENTIAL),
  'hf': Dialect('torch', _HF),
  'keras': Dialect(
    'keras',
    _KERAS,
    _CAFFE_MEAN,
    _CAFFE_STD,
    'bgr',
    keys=dict(version='v1', bias=True, epsilon=1.001e-5),
  ),
  'keras_2015': Dialect(
    'keras',
    _KERAS_2015,
    _CAFFE_MEAN,
    _CAFFE_STD,
    'bgr',
    keys=dict(version='v1', bias=True, epsilon=1e-3),
  ),
  'bit': Dialect('keras', _BIT, _HALF, _HALF, standardised=True),
  'bit_timm': Dialect('torch', _BIT_TIMM, _HALF, _HALF, standardised=True),
  'bit_hf': Dialect('torch', _BIT_HF, _HALF, _HALF, standardised=True),
}


def _torchvision(name: str, source: str, *older: str) -> Weights:
  """Return a torchvision checkpoint; `older` are the digits of files that it replaced.

  Its file name ends with the first digits of its sha256, which torch.hub checks.
  """
  network, _, digits = name.rpartition('-')
  return Weights(
    f'https://download.pytorch.org/models/{name}.pth',
    digits,
    network=network,
    older=older,
    trained_on='ImageNet-1k',
    tried='fixture',
    licence='BSD-3-Clause',
    note=f"github.com/pytorch/vision, {source}; the repository's licence",
  )


def _keras(depth: int, md5: str) -> Weights:
  """Return a Keras checkpoint, for version='v1', bias=True, epsilon=1.001e-5."""
  folder = 'https://storage.googleapis.com/tensorflow/keras-applications/resnet'
  return Weights(
    f'{folder}/resnet{depth}_weights_tf_dim_ordering_tf_kernels.h5',
    md5=md5,
    network=f'resnet{depth}',
    keys=dict(version='v1', bias=True, epsilon=1.001e-5),
    trained_on='ImageNet-1k',
    tried='fixture',
    mean=_CAFFE_MEAN,
    std=_CAFFE_STD,
    note='github.com/keras-team/keras, keras/src/applications/resnet.py; licence not stated there',
  )


def _bit(name: str, network: str, classes: int) -> Weights:
  """Return a BiT checkpoint."""
  return Weights(
    f'https://storage.googleapis.com/bit_models/{name}.npz',
    network=network,
    trained_on='ImageNet-1k' if classes == 1000 else 'ImageNet-21k',
    mean=_HALF,
    std=_HALF,
    classes=classes,
    licence='Apache-2.0',
    note="github.com/google-research/big_transfer, README.md and the files' headers; "
    'no checksum is published',
  )


def _medicalnet(depth: int) -> Weights:
  """Return a MedicalNet checkpoint, of Med3D's newest data where there is one of this depth."""
  many = depth <= 50
  file = f'resnet_{depth}_23dataset.pth' if many else f'resnet_{depth}.pth'
  data = '23 data sets' if many else '3DSeg-8: eight data sets'
  return Weights(
    '',
    network='medicalnet',
    keys=dict(depth=depth, ndim=3),
    page=f'https://huggingface.co/TencentMedicalNet/MedicalNet-Resnet{depth}',
    trained_on=f'{data} of segmented CT and MRI; neither UK Biobank nor MIMIC',
    tried='fixture',
    mean=_ZERO,
    std=_ONE,
    size=0,
    channels=1,
    classes=0,
    licence='MIT',
    note=f"{file}; volumes are standardised by their own voxels above 0: 'standardise' in "
    'config.data.ops, config.mean=(0.0,), config.std=(1.0,); github.com/Tencent/MedicalNet, '
    'README.md, datasets/brains18.py and models/resnet.py; arXiv 1904.00625; the address: MONAI, '
    'monai/networks/nets/resnet.py; no checksum is published',
  )


def _radimagenet(name: str, mean: tuple[float, ...], std: tuple[float, ...], read: str) -> Weights:
  """Return a RadImageNet checkpoint of pictures of 224 pixels, without a head."""
  keras = name == 'keras'
  return Weights(
    '',
    network='resnet50',
    keys=dict(version='v1', bias=True, epsilon=1.001e-5) if keras else {},
    page='https://drive.google.com/drive/folders/1Es7cK1hv7zNHJoUW0tI0e6nLFVYTqPqK',
    trained_on='RadImageNet: 1.35 million pictures of CT, MRI and ultrasound',
    tried='fixture' if keras else 'names',
    mean=mean,
    std=std,
    classes=0,
    terms='the repository is MIT; no licence of the weights is stated',
    note=f'github.com/BMEII-AI/RadImageNet, README.md; mean and deviation as in {read}; no '
    'checksum is published',
  )


_PULL = 'pull request 3620'
_ENUM = 'torchvision/models/resnet.py (IMAGENET1K_V2)'
WEIGHTS = {
  'torchvision_resnet18': _torchvision('resnet18-f37072fd', _PULL, '5c106cde'),
  'torchvision_resnet34': _torchvision('resnet34-b627a593', _PULL, '333f7ec4'),
  'torchvision_resnet50': _torchvision('resnet50-0676ba61', _PULL, '19c8e357'),
  'torchvision_resnet101': _torchvision('resnet101-63fe2227', _PULL, '5d3b4d8f'),
  'torchvision_resnet152': _torchvision('resnet152-394f9c45', _PULL, 'b121ed2d'),
  'torchvision_resnet50_v2': _torchvision('resnet50-11ad3fa6', _ENUM),
  'torchvision_resnet101_v2': _torchvision('resnet101-cd907fc2', _ENUM),
  'torchvision_resnet152_v2': _torchvision('resnet152-f82ba261', _ENUM),
  'keras_resnet50': _keras(50, '2cb95161c43110f7111970584f804107'),
  'keras_resnet101': _keras(101, 'f1aeb4b969a6efcfb50fad2f0c20cfc5'),
  'keras_resnet152': _keras(152, '100835be76be38e30d865e96f2aaae62'),
  'txrv_resnet50': Weights(
    'https://github.com/mlmed/torchxrayvision/releases/download/v1/'
    'pc-nih-rsna-siim-vin-resnet50-test512-e400-state.pt',
    network='resnet50',
    trained_on='chest X-rays of PadChest, NIH, RSNA, SIIM and VinBigData',
    tried='fixture',
    mean=(0.5,),
    std=(1 / 2048,),
    size=512,
    channels=1,
    classes=18,
    licence='Apache-2.0',
    note='inputs are -1024 … 1024; github.com/mlmed/torchxrayvision, torchxrayvision/models.py '
    "(resnet50-res512-all); the repository's licence; no checksum is published",
  ),
  'radimagenet_resnet50': _radimagenet('torch', _HALF, _HALF, 'pytorch_example.ipynb'),
  'radimagenet_resnet50_keras': _radimagenet(
    'keras', _CAFFE_MEAN, (1.0, 1.0, 1.0), 'acl/acl_train.py'
  ),
  **{f'medicalnet_resnet{depth}': _medicalnet(depth) for depth in (10, 18, 34, 50, 101, 152, 200)},
  'merlin': Weights(
    '',
    network='merlin152',
    keys=dict(ndim=3),
    page='https://huggingface.co/stanfordmimi/Merlin',
    trained_on="15,331 abdominal CT volumes of Stanford, with diagnoses and radiologists' reports",
    tried='fixture',
    mean=_ZERO,
    std=_ONE,
    classes=1692,
    terms="the code is MIT; the weights' own terms stand on their page",
    note='i3_resnet_clinical_longformer_best_clip_04-02-2024_23-21-36_epoch_99.pt; grey three '
    'times, -1000 … 1000 HU as 0 … 1, 1.5 × 1.5 × 3 mm, 160 slices of 224 × 224, slices first; '
    'github.com/StanfordMIMI/Merlin, README.md and merlin/models; no checksum is published',
  ),
  'bit_m_r50x1': _bit('BiT-M-R50x1', 'bit50', 21843),
  'bit_s_r50x1': _bit('BiT-S-R50x1', 'bit50', 1000),
  'bit_m_r101x1': _bit('BiT-M-R101x1', 'bit101', 21843),
}

"""Public checkpoints of DenseNets: what their publishers call the arrays, and where they lie."""

from collections.abc import Sequence

from medtl.core.types import Weights
from medtl.models.pretrained.dialects import TORCH_LEAVES, Dialect

Renames = tuple[tuple[str, str], ...]

_HALF = (0.5, 0.5, 0.5)  # mean and std of inputs from -1 to 1
_TORCH = (
  (r'.*num_batches_tracked$', ''),
  (r'^features\.conv0\.', 'params/backbone/stem/conv.'),
  (r'^features\.norm0\.', 'params/backbone/stem/norm.'),
  (r'^features\.norm5\.', 'params/backbone/norm.'),
  (r'^features\.denseblock(\d)\.denselayer(\d+)\.', r'params/backbone/stage\1/layer\2/'),
  *[
    (rf'^features\.transition{n}\.', f'params/backbone/stage{n + 1}/transition/')
    for n in range(1, 4)
  ],
  (r'^params/(.*)\.running_mean$', r'batch_stats/\1/mean'),
  (r'^params/(.*)\.running_var$', r'batch_stats/\1/var'),
  *TORCH_LEAVES,
)
# torchvision's files, CheXNet's and others of those years: norm.1, conv.1 for norm1, conv1
_UNDOTTED = ((r'\.(norm|conv)\.(\d)\.', r'.\1\2.'),)
_TORCHVISION = (  # and timm's, TorchXRayVision's; CheXNet's classifier has a sigmoid behind it
  *_UNDOTTED,
  (r'^classifier\.(0\.)?', 'params/head/dense.'),
  (r'^op_threshs$', ''),  # TorchXRayVision's operating points, which its module applies to logits
  *_TORCH,
)
_SEQUENTIAL = (  # Sequential(*torchvision's children)
  *_UNDOTTED,
  (r'^0\.', 'features.'),
  *_TORCH,
)
_MONAI = (
  (r'\.layers\.', '.'),
  (r'^class_layers\.out\.', 'params/head/dense.'),
  *_TORCH,
)
_KERAS = (  # keras.applications: epsilon=1.001e-5
  (r'^conv1[_/]conv/', 'backbone/stem/conv/'),
  (r'^conv1[_/]bn/', 'backbone/stem/norm/'),
  (r'^bn/', 'backbone/norm/'),
  (r'^predictions/', 'head/dense/'),
  *[(rf'^conv{n + 1}_block(\d+)_', rf'backbone/stage{n}/layer\1/') for n in range(1, 5)],
  *[(f'^pool{n}_(conv|bn)/', rf'backbone/stage{n}/transition/\1/') for n in range(2, 5)],
  (r'/0_bn/', '/norm1/'),
  (r'/1_bn/', '/norm2/'),
  (r'/([12])_conv/', r'/conv\1/'),
  (r'/bn/', '/norm/'),
  (r'/gamma$', '/scale'),
  (r'/beta$', '/bias'),
  (r'^(backbone/.*)/moving_mean$', r'batch_stats/\1/mean'),
  (r'^(backbone/.*)/moving_variance$', r'batch_stats/\1/var'),
  (r'^(backbone|head)/', r'params/\1/'),
)
RENAMES = {
  'torchvision': Dialect('torch', _TORCHVISION),
  'monai': Dialect('torch', _MONAI),
  'sequential': Dialect('torch', _SEQUENTIAL),
  'keras': Dialect('keras', _KERAS, keys=dict(epsilon=1.001e-5)),
}

# what the 18 outputs of a TorchXRayVision DenseNet say, in this order
CHEST_LABELS = (
  'Atelectasis',
  'Consolidation',
  'Infiltration',
  'Pneumothorax',
  'Edema',
  'Emphysema',
  'Fibrosis',
  'Effusion',
  'Pneumonia',
  'Pleural_Thickening',
  'Cardiomegaly',
  'Nodule',
  'Mass',
  'Hernia',
  'Lung Lesion',
  'Fracture',
  'Lung Opacity',
  'Enlarged Cardiomediastinum',
)
_OF_CHEXPERT = (0, 1, 3, 4, 7, 8, 10, 14, 15, 16, 17)  # the labels of CheXpert and MIMIC-CXR


def _torchvision(depth: int, digits: str) -> Weights:
  """Return a torchvision checkpoint, whose name ends with the first digits of its sha256."""
  return Weights(
    f'https://download.pytorch.org/models/densenet{depth}-{digits}.pth',
    digits,
    network=f'densenet{depth}',
    trained_on='ImageNet-1k',
    tried='fixture',
    licence='BSD-3-Clause',
    terms="the training data's may bind too",
    note="github.com/pytorch/vision, torchvision/models/densenet.py; the repository's licence",
  )


def _keras(depth: int, md5: str, classes: int = 1000) -> Weights:
  """Return a Keras checkpoint."""
  folder = 'https://storage.googleapis.com/tensorflow/keras-applications/densenet'
  top = '' if classes else '_notop'
  return Weights(
    f'{folder}/densenet{depth}_weights_tf_dim_ordering_tf_kernels{top}.h5',
    md5=md5,
    network=f'densenet{depth}',
    keys=dict(epsilon=1.001e-5),
    classes=classes,
    trained_on='ImageNet-1k',
    tried='fixture',
    note='github.com/keras-team/keras, keras/src/applications/densenet.py; licence not stated '
    'there',
  )


def _chest(name: str, trained_on: str, labels: Sequence[int] = range(18)) -> Weights:
  """Return a DenseNet-121 of TorchXRayVision (Cohen et al. 2022, arXiv 2111.00595).

  The file is a pickled module. Its inputs are grey, from -1024 to 1024. Outputs that are not among
  `labels`, places in CHEST_LABELS, were not trained.
  """
  untrained = [label for place, label in enumerate(CHEST_LABELS) if place not in labels]
  outputs = f'without {", ".join(untrained)}' if untrained else 'all of them'
  folder = 'https://github.com/mlmed/torchxrayvision/releases/download/v1'
  return Weights(
    f'{folder}/{name}-densenet121-d121-tw-lr001-rot45-tr15-sc15-seed0-best.pt',
    network='densenet121',
    mean=(0.5,),
    std=(1 / 2048,),
    channels=1,
    classes=len(CHEST_LABELS),
    trained_on=f'chest X-rays: {trained_on}',
    tried='fixture',
    licence='Apache-2.0',
    note="github.com/mlmed/torchxrayvision, models.py; the repository's licence, the weights' own "
    'is not stated; no checksum is published; the outputs are CHEST_LABELS of '
    f'medtl/models/pretrained/densenet.py, {outputs}',
  )


WEIGHTS = {
  'torchvision_densenet121': _torchvision(121, 'a639ec97'),
  'torchvision_densenet161': _torchvision(161, '8d451a50'),
  'torchvision_densenet169': _torchvision(169, 'b2777c0a'),
  'torchvision_densenet201': _torchvision(201, 'c1103571'),
  'timm_densenet121_ra': Weights(
    'https://huggingface.co/timm/densenet121.ra_in1k/resolve/main/model.safetensors',
    network='densenet121',
    trained_on='ImageNet-1k',
    tried='fixture',
    licence='Apache-2.0',
    note='github.com/huggingface/pytorch-image-models, timm/models/densenet.py; no checksum is '
    'published',
  ),
  'keras_densenet121': _keras(121, '9d60b8095a5708f2dcce2bca79d332c7'),
  'keras_densenet169': _keras(169, 'd699b8f76981ab1b30698df4c175e90b'),
  'keras_densenet201': _keras(201, '1ceb130c1ea1b78c3bf6114dbdfd8807'),
  'keras_densenet121_notop': _keras(121, '30ee3e1110167f948a6b9946edeeb738', 0),
  'keras_densenet169_notop': _keras(169, 'b8c4d4c20dd625c148057b9ff1c1176b', 0),
  'keras_densenet201_notop': _keras(201, 'c13680b51ded0fb44dff2d8f86ac8bb1', 0),
  'xrv_densenet121_all': _chest(
    'nih-pc-chex-mimic_ch-google-openi-kaggle',
    'NIH, PadChest, CheXpert, MIMIC-CXR, Google, OpenI, RSNA',
  ),
  'xrv_densenet121_nih': _chest('nih', 'NIH ChestX-ray14', range(14)),
  'xrv_densenet121_pc': _chest('pc', 'PadChest', (*range(14), 15)),
  'xrv_densenet121_chex': _chest('chex', 'CheXpert', _OF_CHEXPERT),
  'xrv_densenet121_rsna': _chest('kaggle', 'RSNA Pneumonia Challenge', (8, 16)),
  'xrv_densenet121_mimic_nb': _chest('mimic_nb', 'MIMIC-CXR (NegBio labels)', _OF_CHEXPERT),
  'xrv_densenet121_mimic_ch': _chest('mimic_ch', 'MIMIC-CXR (CheXpert labels)', _OF_CHEXPERT),
  'jfhealthcare_densenet121': Weights(
    'https://github.com/mlmed/torchxrayvision/releases/download/v1/'
    'baseline_models_jfhealthcare-DenseNet121_pre_train.pth',
    network='densenet121',
    mean=_HALF,
    std=(0.25, 0.25, 0.25),
    size=512,
    classes=0,
    trained_on='chest X-rays: CheXpert',
    licence='Apache-2.0',
    note='github.com/mlmed/torchxrayvision, baseline_models/jfhealthcare: without its attention '
    'and its five classifiers; no checksum is published',
  ),
  'radimagenet_densenet121': Weights(
    '',
    page='https://drive.google.com/drive/folders/1Es7cK1hv7zNHJoUW0tI0e6nLFVYTqPqK',
    network='densenet121',
    mean=_HALF,
    std=_HALF,
    classes=0,
    trained_on='RadImageNet: CT, MRI and ultrasound',
    terms='by request; no licence is stated for the weights',
    note='github.com/BMEII-AI/RadImageNet, README.md and acl/acl_pytorch_train.ipynb, for the '
    'DenseNet121.pt of the PyTorch files; the Keras file has the names of Keras (epsilon=1.001e-5) '
    'and other inputs, see acl/acl_train.py',
  ),
}

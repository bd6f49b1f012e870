"""A ResNet-50, transferred to retinal OCT.

python -m medtl.main --config=configs/oct_resnet.py
    OCTMNIST at 224 px and torchvision's ResNet-50, both fetched from their publishers. Published
    for OCTMNIST at 28 px, from scratch (ResNet-18, Yang et al. 2023): AUC .943, accuracy .743.
python -m medtl.main --config=configs/oct_resnet.py:keras \
  --config.data.root=FOLDER --config.model.weights=FILE
    OCT2017 in a folder, Keras' ImageNet ResNet-50 in a file: the head, then the last stage.
python -m medtl.main --config=configs/oct_resnet.py:offline
    No download: a small ResNet learns the source scanner's phantoms, then the target scanner's with
    few labels.
"""

from configs import base, oct_vit


def get_config(variant=''):
  return base.variant(variant, published=published, keras=keras, offline=offline, source=source)


def published(config):
  oct_vit.published(config)
  config.hint = 'configs/oct_resnet.py:offline needs no download'
  config.model = dict(name='resnet.resnet50', weights='torchvision_resnet50_v2')
  config.phases = (('depth(1.0)', '1 epochs'), ('depth(3)', '4 epochs'))


def keras(config):
  oct_vit.folder(config)
  config.model = dict(name='resnet.resnet50', version='v1', bias=True, epsilon=1e-3, weights='')
  config.phases = (('depth(1.0)', '3 epochs'), ('depth(4)', '3 epochs'))
  config.batch = 8
  config.lr = 1e-4
  config.head_lr = 10.0


def offline(config):
  oct_vit.offline(config)
  config.model = dict(name='resnet.resnet18', width=16, weights='run:configs/oct_resnet.py:source')


def source(config):
  oct_vit.source(config)
  config.model = dict(name='resnet.resnet18', width=16, weights='')

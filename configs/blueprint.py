"""The textbook recipe: a frozen ResNet-50, more layers later, focal loss, cross-validation.

python -m medtl.main --config=configs/blueprint.py --config.data.root=FOLDER --folds
    Your own pictures (as configs/images.py reads them) and torchvision's ImageNet ResNet-50,
    fetched from its publisher.
python -m medtl.main --config=configs/blueprint.py:kermany --config.data.root=FOLDER \
  --config.model.weights=FILE --folds
    OCT2017 in a folder, Keras' ImageNet ResNet-50 in a file. Out of fold, 247 images of 96
    patients, a float16 copy of the weights, one seed: AUROC 0.948 (0.904 to 0.985), accuracy 0.903
    (0.841 to 0.951), by patient; 27 minutes on two busy cores.
python -m medtl.main --config=configs/blueprint.py:offline --folds
    No download: a narrow ResNet-50 learns the source scanner's phantoms, then the target
    scanner's. So low a rate teaches it little in ten epochs of 72 patients (fold 0: AUROC 0.651 in
    four minutes): this variant shows that the recipe runs.

The function `recipe` holds what the recipe says, and tests/test_blueprint.py checks each number.
The recipe leaves some things open, which are decided here: after ten epochs the last stage moves
too, for ten epochs more; focal loss has the gamma of its paper (Lin et al. 2017); there are five
folds; the rate stays as it is; nothing is augmented. Whether another rate or another depth is
better on your pictures is measured by the verb lr_find and by experiments/freeze_depth.py.
"""

from configs import base, oct_resnet, oct_vit


def get_config(variant=''):
  return base.variant(variant, published=published, kermany=kermany, offline=offline, source=source)


def recipe(config):
  config.head = dict(name='linear')
  config.phases = (('depth(1.0)', '10 epochs'), ('depth(4)', '10 epochs'))
  config.lr = 1e-4
  config.head_lr = 1.0
  config.schedule = 'constant()'
  config.task.loss = 'focal(gamma=2.0)'
  config.data.split.folds = 5
  config.batch = 8


def published(config):
  config.hint = 'configs/blueprint.py:offline needs no download'
  oct_vit.folder(config)
  config.data.split.by = 'auto'
  config.model = dict(name='resnet.resnet50', weights='torchvision_resnet50')
  config.task.kind = 'auto'
  recipe(config)


def kermany(config):
  oct_resnet.keras(config)
  recipe(config)


def offline(config):
  source(config)
  config.data.update(patients=120, scanner='target')
  config.model.weights = 'run:configs/blueprint.py:source'
  config.augment = ''
  recipe(config)


def source(config):
  oct_vit.source(config)
  config.model = dict(name='resnet.resnet50', width=16, weights='')

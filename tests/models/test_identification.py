"""What a file is: the full lists of names and shapes that publishers' own programs write."""

import json
from pathlib import Path

import numpy as np
import pytest

from medtl.core.types import MedtlError
from medtl.models import identification

FIXTURES = Path(__file__).parents[1] / 'fixtures'
FILES = {  # (fixture, its entry, the name in it): what the file is
  ('alexnet', 'full/shapes', ''): 'alexnet.alexnet',
  ('vgg', 'vgg11/full', ''): 'vgg.vgg11',
  ('vgg', 'vgg19_bn/full', ''): 'vgg.vgg19_bn',
  ('densenet', 'published', 'torchvision121'): 'densenet.densenet121',
  ('densenet', 'published', 'torchvision161'): 'densenet.densenet161',
  ('inception', 'published', 'torchvision'): 'inception.inception_v3',
  ('mobilenet', 'published', 'torchvision_mobilenet_v2'): 'mobilenet.mobilenet_v2',
  ('mobilenet', 'published', 'torchvision_mobilenet_v3_small'): 'mobilenet.mobilenet_v3_small',
  ('efficientnet', 'shapes', 'lite0'): 'efficientnet.efficientnet_lite0',
  ('efficientnet', 'shapes', 'lite2'): 'efficientnet.efficientnet_lite2',
  ('convnext', 'full', 'torchvision/tiny'): 'convnext.convnext_tiny',
  ('swin', 'full', 'torchvision/t'): 'swin.swin_t',
  ('swin', 'full', 'hf/t'): 'swin.swin_t',
  ('resnet3d', 'medicalnet10/full', ''): 'resnet.medicalnet',
  ('resnet3d', 'medicalnet50/full', ''): 'resnet.medicalnet',
  ('resnet3d', 'merlin/full', ''): 'resnet.merlin152',
  ('vit', 'vit_b16/shapes', ''): 'vit.vit_b16',
  ('vit', 'dinov2_vit_s14/shapes', ''): 'vit.dinov2_vit_s14',
  ('vit_switches', 'full/siglip_vit_b16', ''): 'vit.siglip_vit_b16',
  ('vit_switches', 'full/siglip_so400m14', ''): 'vit.siglip_so400m14',
  ('vit_switches', 'full/dinov3_vit_s16', ''): 'vit.dinov3_vit_s16',
  ('vit_switches', 'full/dinov3_vit_s16plus', ''): 'vit.dinov3_vit_s16plus',
  ('vit_switches', 'full/uni', ''): 'vit.uni',
  ('vit_switches', 'full/uni2_h', ''): 'vit.uni2_h',
  ('sam', 'full/sam_vit_b', ''): 'sam.sam_vit_b',
}
QUICK = ('alexnet.alexnet', 'vgg.vgg11', 'swin.swin_t', 'vit.siglip_vit_b16')


def cases():
  found = []
  for place, network in FILES.items():
    marks = [] if network in QUICK and place[2] != 'hf/t' else [pytest.mark.slow]
    found.append(pytest.param(place, network, marks=marks, id='-'.join(filter(None, place))))
  return found


def zeros(place):
  """Return arrays of the names and shapes of a fixture, which take no memory."""
  fixture, entry, name = place
  with np.load(FIXTURES / f'{fixture}.npz') as file:
    shapes = json.loads(str(file[entry]))
  shapes = shapes[name] if name else shapes
  # the fixture is of the tower; files hold the model around it
  prefix = 'vision_model.' if 'siglip' in entry else ''
  return {prefix + key: np.broadcast_to(np.float32(0), shape) for key, shape in shapes.items()}


@pytest.mark.parametrize(('place', 'network'), cases())
def test_a_file_is_known_by_the_names_and_shapes_in_it(place, network):
  finding = identification.identify(zeros(place))
  assert (finding.network, finding.faults) == (network, ())


def test_names_of_no_network_are_said_to_be():
  arrays = {'encoder.lstm.weight_ih_l0': np.zeros((4, 4)), 'decoder.bias': np.zeros(3)}
  with pytest.raises(MedtlError, match=r'those of no network here .*begin with: encoder.lstm'):
    identification.identify(arrays)

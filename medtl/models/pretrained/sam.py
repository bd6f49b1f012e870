"""Public checkpoints of SAM's image encoder: where they lie, what publishers call the arrays."""

import jax
import numpy as np

from medtl.core.types import Weights
from medtl.models.pretrained.dialects import TORCH_LEAVES, Dialect
from medtl.models.pretrained.vit_names import LAST, STEM, resize_positions, stages


def _positions(positions: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
  """Return [*grid, d] from a publisher's [1, *grid, d]."""
  return resize_positions(positions[0], shape[:-1])


def _differences(table: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
  """Return a table [n, d] of differences for grids of another side, linearly between its rows.

  So SAM's code reads it (get_rel_pos).
  """
  return np.asarray(jax.image.resize(table, shape, 'linear', antialias=False))


ADAPT = {
  r'backbone/stem/positions': _positions,
  r'backbone/stage\d+/attention/(rows|columns)': _differences,
}

_SAM = (  # SAM's own names, MedSAM's, and timm's
  *stages(r'^blocks\.{}\.'),
  (r'attn\.qkv\.', 'attention/{query,key,value}.'),
  (r'attn\.proj\.', 'attention/out.'),
  (r'attn\.rel_pos_h$', 'attention/rows'),
  (r'attn\.rel_pos_w$', 'attention/columns'),
  (r'mlp\.(lin1|fc1)\.', 'mlp/up.'),
  (r'mlp\.(lin2|fc2)\.', 'mlp/down.'),
  (r'^pos_embed$', f'{STEM}/positions'),
  (r'^patch_embed\.proj\.', f'{STEM}/embedding.'),
  (r'^neck\.0\.', f'{LAST}/conv1.'),
  (r'^neck\.1\.', f'{LAST}/norm1.'),
  (r'^neck\.2\.', f'{LAST}/conv2.'),
  (r'^neck\.3\.', f'{LAST}/norm2.'),
  *TORCH_LEAVES,
)
_HF = (  # Hugging Face's SamVisionModel
  *stages(r'^layers\.{}\.'),
  (r'attn\.qkv\.', 'attention/{query,key,value}.'),
  (r'attn\.proj\.', 'attention/out.'),
  (r'attn\.rel_pos_h$', 'attention/rows'),
  (r'attn\.rel_pos_w$', 'attention/columns'),
  (r'mlp\.lin1\.', 'mlp/up.'),
  (r'mlp\.lin2\.', 'mlp/down.'),
  (r'^pos_embed$', f'{STEM}/positions'),
  (r'^patch_embed\.projection\.', f'{STEM}/embedding.'),
  (r'^neck\.conv(\d)\.', rf'{LAST}/conv\1.'),
  (r'^neck\.layer_norm(\d)\.', rf'{LAST}/norm\1.'),
  (r'layer_norm(\d)\.', r'norm\1.'),
  *TORCH_LEAVES,
)
RENAMES = {'sam': Dialect('torch', _SAM), 'sam_hf': Dialect('torch', _HF)}


def _sam(size: str, digits: str) -> Weights:
  """Return a checkpoint of SAM; its statistics are ImageNet's, 123.675 … of 0 … 255 there."""
  return Weights(
    f'https://dl.fbaipublicfiles.com/segment_anything/sam_vit_{size}_{digits}.pth',
    network=f'sam_vit_{size}',
    keys=dict(size=(1024, 1024)),
    size=1024,
    classes=0,
    licence='Apache-2.0',
    trained_on='SA-1B',
    note='github.com/huggingface/pytorch-image-models, timm/models/vision_transformer_sam.py; no '
    'sha256 is published',
  )


WEIGHTS = {
  'sam_b': _sam('b', '01ec64'),
  'sam_l': _sam('l', '0b3195'),
  'sam_h': _sam('h', '4b8939'),
  'medsam_b': Weights(
    '',
    network='sam_vit_b',
    keys=dict(size=(1024, 1024)),
    page='https://drive.google.com/drive/folders/1ETWmi4AiniJeWOt6HAsYgTjYv_fkgzoN',
    mean=(0.0, 0.0, 0.0),
    std=(1.0, 1.0, 1.0),
    size=1024,
    classes=0,
    licence='Apache-2.0',
    trained_on='medical pictures and their masks; it began as SAM',
    note='github.com/bowang-lab/MedSAM, README.md, LICENSE (of the code; the file has none of its '
    'own) and MedSAM_Inference.py, which stretches a picture to 0 … 1 and takes no mean away',
  ),
}

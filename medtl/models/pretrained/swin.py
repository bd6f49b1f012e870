"""Public checkpoints of Swin transformers: what publishers call the arrays, where they lie.

And how biases of relative positions are resized for another window.
"""

import numpy as np

from medtl.core.types import MedtlError, Weights
from medtl.models.pretrained.dialects import TORCH_LEAVES, Dialect
from medtl.models.pretrained.vit_names import resize_positions

_BACKBONE = 'params/backbone'
_HEAD = 'params/head'


def _resize_table(table: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
  """Return the biases [(2w - 1)², heads] of a window of pictures for that of `shape`."""
  side = round(len(table) ** 0.5)
  wanted = round(shape[0] ** 0.5)
  if side**2 != len(table) or wanted**2 != shape[0]:
    raise MedtlError(
      f'{len(table)} relative positions cannot become {shape[0]}: both must be those of square '
      'windows; a checkpoint of pictures does not serve volumes'
    )
  squares = table.reshape(side, side, -1)
  return resize_positions(squares, (wanted, wanted)).reshape(wanted**2, -1)


ADAPT = {r'backbone/stage\d+/block\d+/attention/positions': _resize_table}

_FOLLOWS = (r'.*(relative_position_index|attn_mask)$', '')  # what follows from the window's size
_ATTENTION = (
  _FOLLOWS,
  (r'/attn\.qkv\.', '/attention/{query,key,value}.'),
  (r'/attn\.proj\.', '/attention/out.'),
  (r'/attn\.relative_position_bias_table$', '/attention/positions'),
  (r'/reduction\.', '/merge.'),
)


def _layers(beginning: str, merges_before: int) -> tuple[tuple[str, str], ...]:
  """Return renames of blocks, and of what merges patches.

  That stands in the layer before the stage that begins with it (`merges_before` = 1), or in the
  same one (0).
  """
  renames = []
  for number in range(4):
    layer = rf'{beginning}\.{number}'
    stage = f'{_BACKBONE}/stage{number + 1}'
    merged = f'{_BACKBONE}/stage{number + 1 + merges_before}'
    renames.append((rf'{layer}\.blocks\.(\d+)\.', rf'{stage}/block\1/'))
    renames.append((rf'{layer}\.downsample\.norm\.', f'{merged}/merge_norm.'))
    renames.append((rf'{layer}\.downsample\.reduction\.', f'{merged}/merge.'))
  return tuple(renames)


def _torchvision_children() -> tuple[tuple[str, str], ...]:
  """Return renames of features.1 … 7: a stage's blocks and what merges patches by turns."""
  renames = []
  for stage in range(1, 5):
    blocks = rf'^features\.{2 * stage - 1}\.(\d+)\.'
    merges = rf'^features\.{2 * stage - 2}'
    renames.append((blocks, rf'{_BACKBONE}/stage{stage}/block\1/'))
    renames.append((rf'{merges}\.norm\.', f'{_BACKBONE}/stage{stage}/merge_norm.'))
    renames.append((rf'{merges}\.reduction\.', f'{_BACKBONE}/stage{stage}/merge.'))
  return tuple(renames)


_TORCHVISION = (
  (r'^features\.0\.0\.', f'{_BACKBONE}/stem/embedding.'),
  (r'^features\.0\.2\.', f'{_BACKBONE}/stem/norm.'),
  *_torchvision_children(),
  *_ATTENTION,
  (r'/mlp\.0\.', '/mlp/up.'),
  (r'/mlp\.3\.', '/mlp/down.'),
  (r'^norm\.', f'{_BACKBONE}/norm.'),
  (r'^head\.', f'{_HEAD}/dense.'),
  *TORCH_LEAVES,
)
_MICROSOFT_AND_TIMM = (
  *_ATTENTION,
  (r'^patch_embed\.proj\.', f'{_BACKBONE}/stem/embedding.'),
  (r'^patch_embed\.norm\.', f'{_BACKBONE}/stem/norm.'),
  (r'/mlp\.fc1\.', '/mlp/up.'),
  (r'/mlp\.fc2\.', '/mlp/down.'),
  (r'^norm\.', f'{_BACKBONE}/norm.'),
  (r'^head\.(fc\.)?', f'{_HEAD}/dense.'),
  *TORCH_LEAVES,
)
_HF = (  # transformers' SwinModel and SwinForImageClassification, since 5 and before
  (r'^swin\.', ''),
  _FOLLOWS,
  *_layers(r'^encoder\.layers', merges_before=1),
  (r'^embeddings\.patch_embeddings\.projection\.', f'{_BACKBONE}/stem/embedding.'),
  (r'^embeddings\.norm\.', f'{_BACKBONE}/stem/norm.'),
  (r'^embeddings\.mask_token$', ''),
  (r'/layernorm_before\.', '/norm1.'),
  (r'/layernorm_after\.', '/norm2.'),
  (r'/attention\.(self\.)?(query|key|value)\.', r'/attention/\2.'),
  (r'/attention\.(q|k|v|o)_proj\.', r'/attention/\1.'),
  *[
    (f'/attention/{word[0]}\\.', f'/attention/{word}.') for word in ('query', 'key', 'value', 'out')
  ],
  (r'/attention\.output\.dense\.', '/attention/out.'),
  (r'/attention\..*relative_position_bias_table$', '/attention/positions'),
  (r'/(intermediate\.dense|mlp\.fc1)\.', '/mlp/up.'),
  (r'/(output\.dense|mlp\.fc2)\.', '/mlp/down.'),
  (r'^layernorm\.', f'{_BACKBONE}/norm.'),
  (r'^classifier\.', f'{_HEAD}/dense.'),
  *TORCH_LEAVES,
)
RENAMES = {
  'torchvision': Dialect('torch', _TORCHVISION),
  # timm merges patches where a stage begins, Microsoft's own files where the one before ends
  'timm': Dialect('torch', (*_layers('^layers', merges_before=0), *_MICROSOFT_AND_TIMM)),
  'microsoft': Dialect('torch', (*_layers('^layers', merges_before=1), *_MICROSOFT_AND_TIMM)),
  'hf': Dialect('torch', _HF),
}


def _torchvision(name: str) -> Weights:
  """Return a torchvision checkpoint; its file name ends with the first digits of its sha256."""
  network, _, digits = name.rpartition('-')
  return Weights(
    f'https://download.pytorch.org/models/{name}.pth',
    digits,
    network=network,
    trained_on='ImageNet-1k',
    tried='fixture',
    licence='BSD-3-Clause',
    note="github.com/pytorch/vision, torchvision/models/swin_transformer.py; the repository's "
    'licence',
  )


def _microsoft(file: str, trained_on: str, classes: int = 1000) -> Weights:
  """Return a checkpoint of the authors, of a release of their storage."""
  size = file.split('swin_')[1][0]
  return Weights(
    f'https://github.com/SwinTransformer/storage/releases/download/{file}.pth',
    network=f'swin_{size}',
    classes=classes,
    trained_on=trained_on,
    tried='fixture',
    licence='MIT',
    note='github.com/huggingface/pytorch-image-models, timm/models/swin_transformer.py; no '
    'checksum is published',
  )


# RadImageNet's README tells a Swin's accuracy, but neither its size nor a file: it has no entry.
_22K = 'ImageNet-22k'
_FINE = 'ImageNet-22k, then ImageNet-1k'
WEIGHTS = {
  'torchvision_swin_t': _torchvision('swin_t-704ceda3'),
  'torchvision_swin_s': _torchvision('swin_s-5e29d889'),
  'torchvision_swin_b': _torchvision('swin_b-68c6b09e'),
  'swin_t_1k': _microsoft('v1.0.0/swin_tiny_patch4_window7_224', 'ImageNet-1k'),
  'swin_s_1k': _microsoft('v1.0.0/swin_small_patch4_window7_224', 'ImageNet-1k'),
  'swin_b_1k': _microsoft('v1.0.0/swin_base_patch4_window7_224', 'ImageNet-1k'),
  'swin_t_22k': _microsoft('v1.0.8/swin_tiny_patch4_window7_224_22k', _22K, 21841),
  'swin_s_22k': _microsoft('v1.0.8/swin_small_patch4_window7_224_22k', _22K, 21841),
  'swin_b_22k': _microsoft('v1.0.0/swin_base_patch4_window7_224_22k', _22K, 21841),
  'swin_t_22k_1k': _microsoft('v1.0.8/swin_tiny_patch4_window7_224_22kto1k_finetune', _FINE),
  'swin_s_22k_1k': _microsoft('v1.0.8/swin_small_patch4_window7_224_22kto1k_finetune', _FINE),
  'swin_b_22k_1k': _microsoft('v1.0.0/swin_base_patch4_window7_224_22kto1k', _FINE),
}

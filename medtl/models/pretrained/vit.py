"""Public checkpoints of vision transformers: where they lie, what publishers call the arrays.

And how position embeddings are resized.
"""

import math

import jax
import numpy as np

from medtl.core.types import MedtlError, Weights
from medtl.models.pretrained.dialects import TORCH_LEAVES, Dialect


def resize_positions(positions: np.ndarray, grid: tuple[int, ...]) -> np.ndarray:
  """Return position embeddings [*source, d] on another grid, [*grid, d].

  They are the same array when the grid is the same. Bicubic (a = -0.5) and antialiased, as Pillow
  resizes and as timm ports checkpoints. DINOv2's own code interpolates without antialiasing
  (a = -0.75), which differs by some percent where its 37 × 37 grid shrinks.
  """
  if positions.shape[:-1] == tuple(grid):
    return positions
  shape = (*grid, positions.shape[-1])
  return np.asarray(jax.image.resize(positions, shape, 'cubic', antialias=True))


def _patch_positions(rows: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
  """Return [*grid, d] from a publisher's [1, 1 + n, d], whose first row is the class token's.

  n is a square (a cube …), as public checkpoints were trained on square pictures. Otherwise it must
  be the number of patches of our own grid, or a MedtlError is raised.
  """
  patches = rows.reshape(-1, rows.shape[-1])[1:]
  count = len(patches)
  grid = shape[:-1]
  axes = len(grid)
  side = round(count ** (1 / axes))
  source = (side,) * axes if side**axes == count else grid
  if math.prod(source) != count:
    raise MedtlError(
      f'{count} position embeddings of patches are neither a square nor a grid of {grid}; '
      'expected a checkpoint of square pictures, or of pictures of this size'
    )
  return resize_positions(patches.reshape(*source, -1), grid)


def _class_position(rows: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
  """Return the class token's [d] from a publisher's [1, 1 + n, d]."""
  return rows.reshape(-1, rows.shape[-1])[0]


# The positions of class token and patches are one array of the publisher's and two of ours. So the
# shape of ours says its grid, and a class token is known, never guessed from a count: each of the
# two takes its part of the whole.
ADAPT = {
  r'backbone/stem/class_position': _class_position,
  r'backbone/stem/positions': _patch_positions,
}

_BACKBONE = 'params/backbone'
_STEM = 'params/backbone/stem'
_POSITIONS = f'{_STEM}/{{class_position,positions}}'


def _stages(block: str, count: int = 24) -> tuple[tuple[str, str], ...]:
  """Return renames of blocks, which publishers count from 0.

  `block` is a pattern with a place for the number.
  """
  return tuple((block.format(i), f'{_BACKBONE}/stage{i + 1}/') for i in range(count))


_VIT_AND_DINOV2_HF = (  # names that Hugging Face's ViT and DINOv2 share
  *_stages(r'^encoder\.layer\.{}\.'),
  (r'attention\.attention\.', 'attention/'),
  (r'attention\.output\.dense\.', 'attention/out.'),
  (r'^embeddings\.cls_token$', f'{_STEM}/class_token'),
  (r'^embeddings\.register_tokens$', f'{_STEM}/registers'),
  (r'^embeddings\.position_embeddings$', _POSITIONS),
  (r'^embeddings\.mask_token$|^pooler\..*', ''),
  (r'^embeddings\.patch_embeddings\.projection\.', f'{_STEM}/embedding.'),
  (r'^layernorm\.', f'{_BACKBONE}/norm.'),
  (r'^classifier\.', 'params/head/dense.'),
)
_HALF = (0.5, 0.5, 0.5)  # mean and std of inputs from -1 to 1
_CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
_CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
_CLIP_KEYS = dict(epsilon=1e-5)
_OPENAI = (  # OpenAI's names, of the whole model
  (r'^(transformer\.|token_embedding\.|ln_final\.).*', ''),
  (r'^(positional_embedding|text_projection|logit_scale|visual\.proj)$', ''),
  (r'^(input_resolution|context_length|vocab_size)$', ''),  # beside it in the TorchScript
  *_stages(r'^visual\.transformer\.resblocks\.{}\.'),
  (r'attn\.in_proj_', 'attention/{query,key,value}.'),
  (r'attn\.out_proj\.', 'attention/out.'),
  (r'mlp\.c_fc\.', 'mlp/up.'),
  (r'mlp\.c_proj\.', 'mlp/down.'),
  (r'ln_(\d)\.', r'norm\1.'),
  (r'^visual\.class_embedding$', f'{_STEM}/class_token'),
  (r'^visual\.positional_embedding$', _POSITIONS),
  (r'^visual\.conv1\.', f'{_STEM}/embedding.'),
  (r'^visual\.ln_pre\.', f'{_STEM}/norm.'),
  (r'^visual\.ln_post\.', f'{_BACKBONE}/norm.'),
  *TORCH_LEAVES,
)
_AUGREG = (  # vision_transformer (AugReg) and big_vision
  *_stages(r'^Transformer/encoderblock_{}/'),
  (r'LayerNorm_0/', 'norm1/'),
  (r'LayerNorm_[12]/', 'norm2/'),
  (r'MultiHeadDotProductAttention_\d/', 'attention/'),
  (r'MlpBlock_\d/Dense_0/', 'mlp/up/'),
  (r'MlpBlock_\d/Dense_1/', 'mlp/down/'),
  (r'^Transformer/encoder_norm/', f'{_BACKBONE}/norm/'),
  (r'^cls$', f'{_STEM}/class_token'),
  (r'^embedding/', f'{_STEM}/embedding/'),
  (r'^(Transformer/posembed_input/)?pos_embedding$', _POSITIONS),
  (r'^pre_logits/.*', ''),
  (r'^head/', 'params/head/dense/'),
)
_TIMM = (  # DeiT, DINO, DINOv2, MAE and timm (whose AugReg ones want mean and std 0.5)
  (r'^decoder_.*', ''),  # MAE's, which its pretraining alone needs
  (r'^blocks\.\d+\.(\d+)\.', r'blocks.\1.'),  # DINOv2's training has chunks of blocks
  *_stages(r'^blocks\.{}\.'),
  (r'attn\.qkv\.', 'attention/{query,key,value}.'),
  (r'attn\.proj\.', 'attention/out.'),
  (r'mlp\.fc1\.', 'mlp/up.'),
  (r'mlp\.fc2\.', 'mlp/down.'),
  (r'ls(\d)\.gamma$', r'scale\1'),
  (r'^cls_token$', f'{_STEM}/class_token'),
  (r'^(reg_token|register_tokens)$', f'{_STEM}/registers'),
  (r'^pos_embed$', _POSITIONS),
  (r'^mask_token$', ''),
  (r'^patch_embed\.proj\.', f'{_STEM}/embedding.'),
  (r'^norm_pre\.', f'{_STEM}/norm.'),
  (r'^norm\.', f'{_BACKBONE}/norm.'),
  (r'^head\.', 'params/head/dense.'),
  *TORCH_LEAVES,
)
_VIT_HF = (  # Hugging Face's ViT, as Google's checkpoints were converted
  (r'^vit\.', ''),
  *_VIT_AND_DINOV2_HF,
  (r'layernorm_before\.', 'norm1.'),
  (r'layernorm_after\.', 'norm2.'),
  (r'intermediate\.dense\.', 'mlp/up.'),
  (r'output\.dense\.', 'mlp/down.'),
  *TORCH_LEAVES,
)
_DINOV2_HF = (  # Hugging Face's DINOv2, with and without registers
  (r'^dinov2(_with_registers)?\.', ''),
  *_VIT_AND_DINOV2_HF,
  (r'mlp\.fc1\.', 'mlp/up.'),
  (r'mlp\.fc2\.', 'mlp/down.'),
  (r'layer_scale(\d)\.lambda1$', r'scale\1'),
  *TORCH_LEAVES,
)
_CLIP_HF = (  # Hugging Face: CLIPModel, CLIPVisionModel, …WithProjection
  (r'^(text_model\.|text_projection\.|visual_projection\.|logit_scale$).*|.*\.position_ids$', ''),
  # the tower alone
  (r'^(embeddings|encoder|pre_layrnorm|post_layernorm)\.', r'vision_model.\1.'),
  *_stages(r'^vision_model\.encoder\.layers\.{}\.'),
  (r'self_attn\.q_proj\.', 'attention/query.'),
  (r'self_attn\.k_proj\.', 'attention/key.'),
  (r'self_attn\.v_proj\.', 'attention/value.'),
  (r'self_attn\.out_proj\.', 'attention/out.'),
  (r'mlp\.fc1\.', 'mlp/up.'),
  (r'mlp\.fc2\.', 'mlp/down.'),
  (r'layer_norm(\d)\.', r'norm\1.'),
  (r'^vision_model\.embeddings\.class_embedding$', f'{_STEM}/class_token'),
  (r'^vision_model\.embeddings\.position_embedding\.weight$', _POSITIONS),
  (r'^vision_model\.embeddings\.patch_embedding\.', f'{_STEM}/embedding.'),
  (r'^vision_model\.pre_layrnorm\.', f'{_STEM}/norm.'),
  (r'^vision_model\.post_layernorm\.', f'{_BACKBONE}/norm.'),
  *TORCH_LEAVES,
)
RENAMES = {
  'augreg': Dialect('flax', _AUGREG, _HALF, _HALF),
  'timm': Dialect('torch', _TIMM),
  'hf': Dialect('torch', _VIT_HF, _HALF, _HALF),
  'dinov2_hf': Dialect('torch', _DINOV2_HF),
  'clip_hf': Dialect('torch', _CLIP_HF, _CLIP_MEAN, _CLIP_STD, keys=_CLIP_KEYS),
  'clip_openai': Dialect('torch', _OPENAI, _CLIP_MEAN, _CLIP_STD, keys=_CLIP_KEYS),
  # the image tower alone
  'clip_visual': Dialect(
    'torch', ((r'^', 'visual.'), *_OPENAI), _CLIP_MEAN, _CLIP_STD, keys=_CLIP_KEYS
  ),
}


def _augreg(name: str, network: str) -> Weights:
  """Return an AugReg checkpoint, trained on ImageNet-21k with inputs from -1 to 1.

  Steiner et al. 2022, arXiv 2106.10270.
  """
  return Weights(
    f'https://storage.googleapis.com/vit_models/augreg/{name}.npz',
    network=network,
    trained_on='ImageNet-21k',
    tried='fixture',
    mean=_HALF,
    std=_HALF,
    classes=21843,
    licence='Apache-2.0',
    note='github.com/google-research/big_vision, models/vit.py (VANITY_NAMES); '
    "the bucket's address and the licence: github.com/google-research/vision_transformer, "
    'README.md and LICENSE; no checksum is published',
  )


def _facebook(
  path: str, network: str, prefix: str = '', classes: int = 0, note: str = ''
) -> Weights:
  """Return a checkpoint of DeiT or DINO."""
  return Weights(
    f'https://dl.fbaipublicfiles.com/{path}.pth',
    prefix,
    network=network,
    classes=classes,
    licence='Apache-2.0',
    trained_on='ImageNet-1k' if classes else 'ImageNet-1k, without labels',
    tried='fixture',
    note=f'github.com/facebookresearch/{note}',
  )


def _dinov2(size: str) -> Weights:
  """Return a checkpoint of DINOv2."""
  path = f'dinov2/dinov2_vit{size}14/dinov2_vit{size}14_pretrain.pth'
  return Weights(
    f'https://dl.fbaipublicfiles.com/{path}',
    network=f'dinov2_vit_{size}14',
    keys=dict(size=(518, 518)),
    size=518,
    classes=0,
    licence='Apache-2.0',
    trained_on='LVD-142M, without labels',
    note='github.com/facebookresearch/dinov2, dinov2/hub/backbones.py and utils.py; no checksum is '
    'published',
  )


_DEIT = 'deit, README_deit.md; the file name carries the hash'
_DINO = 'dino, hubconf.py; no checksum is published'
WEIGHTS = {
  'augreg_ti16': _augreg('Ti_16-i21k-300ep-lr_0.001-aug_none-wd_0.03-do_0.0-sd_0.0', 'vit_ti16'),
  'augreg_s16': _augreg('S_16-i21k-300ep-lr_0.001-aug_light1-wd_0.03-do_0.0-sd_0.0', 'vit_s16'),
  'augreg_b16': _augreg('B_16-i21k-300ep-lr_0.001-aug_medium1-wd_0.1-do_0.0-sd_0.0', 'vit_b16'),
  'augreg_l16': _augreg('L_16-i21k-300ep-lr_0.001-aug_strong1-wd_0.1-do_0.0-sd_0.0', 'vit_l16'),
  'deit_ti16': _facebook(
    'deit/deit_tiny_patch16_224-a1311bcf', 'vit_ti16', 'a1311bcf', classes=1000, note=_DEIT
  ),
  'deit_s16': _facebook(
    'deit/deit_small_patch16_224-cd65a155', 'vit_s16', 'cd65a155', classes=1000, note=_DEIT
  ),
  'deit_b16': _facebook(
    'deit/deit_base_patch16_224-b5f2ef4d', 'vit_b16', 'b5f2ef4d', classes=1000, note=_DEIT
  ),
  'dino_s16': _facebook(
    'dino/dino_deitsmall16_pretrain/dino_deitsmall16_pretrain', 'vit_s16', note=_DINO
  ),
  'dino_b16': _facebook(
    'dino/dino_vitbase16_pretrain/dino_vitbase16_pretrain', 'vit_b16', note=_DINO
  ),
  'dinov2_s14': _dinov2('s'),
  'dinov2_b14': _dinov2('b'),
  'dinov2_l14': _dinov2('l'),
}

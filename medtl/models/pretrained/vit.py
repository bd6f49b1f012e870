"""Public checkpoints of vision transformers: AugReg, DeiT, DINO, MAE, and all other publishers'.

What is one publisher's alone stands in vit_clip.py, vit_siglip.py, vit_dino.py, vit_medical.py.
"""

from medtl.core.types import Weights
from medtl.models.pretrained import vit_clip, vit_dino, vit_medical, vit_siglip
from medtl.models.pretrained.dialects import TORCH_LEAVES, Dialect
from medtl.models.pretrained.vit_names import (  # noqa: F401
  ADAPT,
  BACKBONE,
  HALF,
  LAST,
  POSITIONS,
  STEM,
  stages,
)

_AUGREG = (  # vision_transformer (AugReg) and big_vision
  *stages(r'^Transformer/encoderblock_{}/'),
  (r'LayerNorm_0/', 'norm1/'),
  (r'LayerNorm_[12]/', 'norm2/'),
  (r'MultiHeadDotProductAttention_\d/', 'attention/'),
  (r'MlpBlock_\d/Dense_0/', 'mlp/up/'),
  (r'MlpBlock_\d/Dense_1/', 'mlp/down/'),
  (r'^Transformer/encoder_norm/', f'{BACKBONE}/norm/'),
  (r'^cls$', f'{STEM}/class_token'),
  (r'^embedding/', f'{STEM}/embedding/'),
  (r'^(Transformer/posembed_input/)?pos_embedding$', POSITIONS),
  (r'^pre_logits/.*', ''),
  (r'^head/', 'params/head/dense/'),
)
_VIT_HF = (  # Hugging Face's ViT, as Google's checkpoints were converted
  (r'^vit\.', ''),
  *stages(r'^encoder\.layer\.{}\.'),
  (r'attention\.attention\.', 'attention/'),
  (r'attention\.output\.dense\.', 'attention/out.'),
  (r'^embeddings\.cls_token$', f'{STEM}/class_token'),
  (r'^embeddings\.position_embeddings$', POSITIONS),
  (r'^embeddings\.mask_token$|^pooler\..*', ''),
  (r'^embeddings\.patch_embeddings\.projection\.', f'{STEM}/embedding.'),
  (r'^layernorm\.', f'{BACKBONE}/norm.'),
  (r'^classifier\.', 'params/head/dense.'),
  (r'layernorm_before\.', 'norm1.'),
  (r'layernorm_after\.', 'norm2.'),
  (r'intermediate\.dense\.', 'mlp/up.'),
  (r'output\.dense\.', 'mlp/down.'),
  *TORCH_LEAVES,
)


def _timm(positions: str = POSITIONS, gated: bool = False) -> Dialect:
  """Return the names of DeiT, DINO, DINOv2, MAE and timm (whose AugReg ones want mean, std 0.5).

  `positions` is the path of their array of positions. `gated`: timm calls the layers of a SwiGLU
  as those of an MLP, and has gate and hidden units in one array.
  """
  renames = (
    (r'^decoder_.*', ''),  # MAE's, which its pretraining alone needs
    (r'^blocks\.\d+\.(\d+)\.', r'blocks.\1.'),  # DINOv2's training has chunks of blocks
    *stages(r'^blocks\.{}\.'),
    (r'attn\.qkv\.', 'attention/{query,key,value}.'),
    (r'attn\.proj\.', 'attention/out.'),
    (r'mlp\.w12\.', 'mlp/{gate,up}.'),
    (r'mlp\.w3\.', 'mlp/down.'),
    (r'mlp\.fc1\.', 'mlp/{gate,up}.' if gated else 'mlp/up.'),
    (r'mlp\.fc2\.', 'mlp/down.'),
    (r'ls(\d)\.gamma$', r'scale\1'),
    (r'^cls_token$', f'{STEM}/class_token'),
    (r'^(reg_token|register_tokens)$', f'{STEM}/registers'),
    (r'^pos_embed$', positions),
    (r'^mask_token$', ''),
    (r'^patch_embed\.proj\.', f'{STEM}/embedding.'),
    (r'^norm_pre\.', f'{STEM}/norm.'),
    (r'^norm\.', f'{BACKBONE}/norm.'),
    (r'^fc_norm\.weight$', f'{LAST}/scale'),  # of the mean of the patches
    (r'^fc_norm\.', f'{LAST}/'),
    (r'^head\.', 'params/head/dense.'),
    *TORCH_LEAVES,
  )
  return Dialect('torch', renames)


# Virchow2's registers have positions too; it has four
_ALL = f'{STEM}/{{class_position[:1],register_positions[1:5],positions[5:]}}'
RENAMES = {
  'augreg': Dialect('flax', _AUGREG, HALF, HALF),
  'timm': _timm(),
  'timm_gated': _timm(gated=True),
  'timm_patches': _timm(f'{STEM}/positions'),
  'timm_patches_gated': _timm(f'{STEM}/positions', gated=True),
  'timm_all_gated': _timm(_ALL, gated=True),
  'hf': Dialect('torch', _VIT_HF, HALF, HALF),
  **vit_dino.RENAMES,
  **vit_clip.RENAMES,
  **vit_siglip.RENAMES,
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
    mean=HALF,
    std=HALF,
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


def _mae(size: str) -> Weights:
  """Return the encoder of a masked autoencoder (He et al. 2022, arXiv 2111.06377)."""
  return Weights(
    f'https://dl.fbaipublicfiles.com/mae/pretrain/mae_pretrain_vit_{size}.pth',
    network=f'vit_{size[0]}16',
    classes=0,
    licence='CC BY-NC 4.0',
    terms='not for commercial use',
    trained_on='ImageNet-1k, without labels',
    tried='fixture',
    note='github.com/huggingface/pytorch-image-models, timm/models/vision_transformer.py; no '
    'checksum is published',
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
  'mae_b16': _mae('base'),
  'mae_l16': _mae('large'),
  **vit_dino.WEIGHTS,
  **vit_clip.WEIGHTS,
  **vit_siglip.WEIGHTS,
  **vit_medical.WEIGHTS,
}

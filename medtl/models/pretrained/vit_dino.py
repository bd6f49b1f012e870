"""DINOv2 and DINOv3: the names of Meta (those of DINOv2 are timm's) and of Hugging Face."""

from typing import Any

from medtl.core.types import Weights
from medtl.models.pretrained.dialects import TORCH_LEAVES, Dialect
from medtl.models.pretrained.vit_names import BACKBONE, POSITIONS, STEM, stages

_DINOV2_HF = (  # Hugging Face's DINOv2, with and without registers, gated or not
  (r'^dinov2(_with_registers)?\.', ''),
  *stages(r'^encoder\.layer\.{}\.'),
  (r'attention\.attention\.', 'attention/'),
  (r'attention\.output\.dense\.', 'attention/out.'),
  (r'^embeddings\.cls_token$', f'{STEM}/class_token'),
  (r'^embeddings\.register_tokens$', f'{STEM}/registers'),
  (r'^embeddings\.position_embeddings$', POSITIONS),
  (r'^embeddings\.mask_token$|^pooler\..*', ''),
  (r'^embeddings\.patch_embeddings\.projection\.', f'{STEM}/embedding.'),
  (r'^layernorm\.', f'{BACKBONE}/norm.'),
  (r'^classifier\.', 'params/head/dense.'),
  (r'mlp\.(gate|up|down)_proj\.', r'mlp/\1.'),
  (r'mlp\.weights_in\.', 'mlp/{gate,up}.'),  # before transformers 5
  (r'mlp\.weights_out\.', 'mlp/down.'),
  (r'mlp\.fc1\.', 'mlp/up.'),
  (r'mlp\.fc2\.', 'mlp/down.'),
  (r'layer_scale(\d)\.lambda1$', r'scale\1'),
  *TORCH_LEAVES,
)
_DINOV3_HF = (
  (r'^(model\.)?layer\.', 'layer.'),
  *stages(r'^layer\.{}\.'),
  (r'attention\.q_proj\.', 'attention/query.'),
  (r'attention\.k_proj\.', 'attention/key.'),
  (r'attention\.v_proj\.', 'attention/value.'),
  (r'attention\.o_proj\.', 'attention/out.'),
  (r'mlp\.(gate|up|down)_proj\.', r'mlp/\1.'),
  (r'layer_scale(\d)\.lambda1$', r'scale\1'),
  (r'^embeddings\.mask_token$', ''),
  (r'^embeddings\.cls_token$', f'{STEM}/class_token'),
  (r'^embeddings\.register_tokens$', f'{STEM}/registers'),
  (r'^embeddings\.patch_embeddings\.', f'{STEM}/embedding.'),
  (r'^norm\.', f'{BACKBONE}/norm.'),
  *TORCH_LEAVES,
)
_DINOV3_META = (
  (r'^(mask_token|rope_embed\..*|local_cls_norm\..*)$|.*\.bias_mask$', ''),
  *stages(r'^blocks\.{}\.'),
  (r'attn\.qkv\.weight$', 'attention/{query,key,value}.weight'),
  (r'attn\.qkv\.bias$', 'attention/{query,,value}.bias'),  # the mask makes that of the keys zero
  (r'attn\.proj\.', 'attention/out.'),
  (r'mlp\.(w1)\.', 'mlp/gate.'),
  (r'mlp\.(w2|fc1)\.', 'mlp/up.'),
  (r'mlp\.(w3|fc2)\.', 'mlp/down.'),
  (r'ls(\d)\.gamma$', r'scale\1'),
  (r'^cls_token$', f'{STEM}/class_token'),
  (r'^storage_tokens$', f'{STEM}/registers'),
  (r'^patch_embed\.proj\.', f'{STEM}/embedding.'),
  (r'^norm\.', f'{BACKBONE}/norm.'),
  (r'^head\.', 'params/head/dense.'),
  *TORCH_LEAVES,
)
RENAMES = {
  'dinov2_hf': Dialect('torch', _DINOV2_HF),
  'dinov3': Dialect('torch', _DINOV3_META),
  'dinov3_hf': Dialect('torch', _DINOV3_HF),
}


def _dinov2(size: str, registers: int = 0) -> Weights:
  """Return a checkpoint of DINOv2."""
  name = f'dinov2_vit{size}14'
  variant = f'_reg{registers}' if registers else ''
  keys = dict(size=(518, 518), registers=registers) if registers else dict(size=(518, 518))
  return Weights(
    f'https://dl.fbaipublicfiles.com/dinov2/{name}/{name}{variant}_pretrain.pth',
    network=f'dinov2_vit_{size}14',
    keys=keys,
    size=518,
    classes=0,
    licence='Apache-2.0',
    trained_on='LVD-142M, without labels',
    note='github.com/facebookresearch/dinov2, dinov2/hub/backbones.py and utils.py; no checksum is '
    'published',
  )


_LVD = 'LVD-1689M, without labels'
_SAT = 'SAT-493M: satellite pictures, without labels'


def _dinov3(size: str, digits: str, trained_on: str = _LVD, **statistics: Any) -> Weights:
  """Return a checkpoint of DINOv3; the name of its file carries the digits."""
  return Weights(
    '',
    digits,
    network=f'dinov3_vit_{size}',
    page='https://github.com/facebookresearch/dinov3',
    classes=0,
    licence='DINOv3 License',
    terms='gated: the licence is accepted on a form of Meta',
    size=0,
    trained_on=trained_on,
    note='github.com/facebookresearch/dinov3, dinov3/hub/backbones.py, README.md, LICENSE.md; the '
    "file's name carries the first digits of its hash. Pictures of any size that 16 divides",
    **statistics,
  )


_RAD_DINO = 'https://huggingface.co/microsoft/rad-dino/resolve/main'


def _rad_dino(file: str, tried: str) -> Weights:
  """Return RAD-DINO (Pérez-García et al. 2025, arXiv 2401.10815) under one of its two schemes."""
  return Weights(
    f'{_RAD_DINO}/{file}.safetensors',
    network='dinov2_vit_b14',
    keys=dict(size=(518, 518)),
    mean=(0.5307, 0.5307, 0.5307),
    std=(0.2583, 0.2583, 0.2583),
    size=518,
    classes=0,
    licence='MIT',
    terms='for research alone',
    trained_on='chest radiographs of three countries, without labels; it began as DINOv2',
    tried=tried,
    note='huggingface.co: the file list and card of microsoft/rad-dino; mean and deviation of its '
    'preprocessor_config.json as other programs quote them; no checksum is stated',
  )


WEIGHTS = {
  'dinov2_s14': _dinov2('s'),
  'dinov2_b14': _dinov2('b'),
  'dinov2_l14': _dinov2('l'),
  'dinov2_g14': _dinov2('g'),
  'dinov2_s14_reg4': _dinov2('s', registers=4),
  'dinov2_b14_reg4': _dinov2('b', registers=4),
  'dinov2_l14_reg4': _dinov2('l', registers=4),
  'dinov2_g14_reg4': _dinov2('g', registers=4),
  'dinov3_s16': _dinov3('s16', '08c60483'),
  'dinov3_s16plus': _dinov3('s16plus', '4057cbaa'),
  'dinov3_b16': _dinov3('b16', '73cec8be'),
  'dinov3_l16': _dinov3('l16', '8aa4cbdd'),
  'dinov3_l16_sat': _dinov3(
    'l16', 'eadcf0ff', _SAT, mean=(0.430, 0.411, 0.296), std=(0.213, 0.156, 0.143)
  ),
  'dinov3_h16plus': _dinov3('h16plus', '7c1da9a5'),
  'rad_dino': _rad_dino('model', 'fixture'),  # Hugging Face's names
  'rad_dino_meta': _rad_dino('backbone_compatible', 'names'),  # Meta's names
}

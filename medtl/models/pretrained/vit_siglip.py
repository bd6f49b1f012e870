"""SigLIP, SigLIP 2 and MedSigLIP: big_vision's names, timm's and Hugging Face's."""

from typing import Any

from medtl.core.types import Weights
from medtl.models.pretrained.dialects import TORCH_LEAVES, Dialect
from medtl.models.pretrained.vit_names import BACKBONE, HALF, LAST, STEM, stages

_HF = (  # SiglipModel, SiglipVisionModel
  (r'^(text_model\..*|logit_scale|logit_bias)$', ''),
  (r'.*position_ids$', ''),
  (r'^(embeddings|encoder|post_layernorm|head)\.', r'vision_model.\1.'),  # the tower alone
  *stages(r'^vision_model\.encoder\.layers\.{}\.'),
  (r'^vision_model\.head\.probe$', f'{LAST}/probe'),
  (r'^vision_model\.head\.attention\.in_proj_', f'{LAST}/{{query,key,value}}.'),
  (r'^vision_model\.head\.attention\.out_proj\.', f'{LAST}/out.'),
  (r'^vision_model\.head\.layernorm\.', f'{LAST}/norm.'),
  (r'^vision_model\.head\.', f'{LAST}/'),
  (r'self_attn\.q_proj\.', 'attention/query.'),
  (r'self_attn\.k_proj\.', 'attention/key.'),
  (r'self_attn\.v_proj\.', 'attention/value.'),
  (r'self_attn\.out_proj\.', 'attention/out.'),
  (r'mlp\.fc1\.', 'mlp/up.'),
  (r'mlp\.fc2\.', 'mlp/down.'),
  (r'layer_norm(\d)\.', r'norm\1.'),
  (r'^vision_model\.embeddings\.position_embedding\.weight$', f'{STEM}/positions'),
  (r'^vision_model\.embeddings\.patch_embedding\.', f'{STEM}/embedding.'),
  (r'^vision_model\.post_layernorm\.', f'{BACKBONE}/norm.'),
  *TORCH_LEAVES,
)
_TIMM = (
  *stages(r'^blocks\.{}\.'),
  (r'^attn_pool\.latent$', f'{LAST}/probe'),
  (r'^attn_pool\.q\.', f'{LAST}/query.'),
  (r'^attn_pool\.kv\.', f'{LAST}/{{key,value}}.'),
  (r'^attn_pool\.proj\.', f'{LAST}/out.'),
  (r'^attn_pool\.', f'{LAST}/'),
  (r'attn\.qkv\.', 'attention/{query,key,value}.'),
  (r'attn\.proj\.', 'attention/out.'),
  (r'mlp\.fc1\.', 'mlp/up.'),
  (r'mlp\.fc2\.', 'mlp/down.'),
  (r'^pos_embed$', f'{STEM}/positions'),
  (r'^patch_embed\.proj\.', f'{STEM}/embedding.'),
  (r'^norm\.', f'{BACKBONE}/norm.'),
  (r'^head\.', 'params/head/dense.'),
  *TORCH_LEAVES,
)
_BIG_VISION = (  # .npz; later ones hold all blocks in one array, along its first axis
  (r'^(t|b|txt/.*)$', ''),
  (r'^img/', ''),
  *stages(r'^Transformer/encoderblock_{}/'),
  (r'^Transformer/encoderblock/', f'{BACKBONE}/stage_each/'),
  (r'^MAPHead_0/probe$', f'{LAST}/probe'),
  (r'^MAPHead_0/LayerNorm_0/', f'{LAST}/norm/'),
  (r'^MAPHead_0/MultiHeadDotProductAttention_0/', f'{LAST}/'),
  (r'^MAPHead_0/', f'{LAST}/'),
  (r'LayerNorm_0/', 'norm1/'),
  (r'LayerNorm_1/', 'norm2/'),
  (r'MultiHeadDotProductAttention_0/', 'attention/'),
  (r'MlpBlock_0/Dense_0/', 'mlp/up/'),
  (r'MlpBlock_0/Dense_1/', 'mlp/down/'),
  (r'^Transformer/encoder_norm/', f'{BACKBONE}/norm/'),
  (r'^embedding/', f'{STEM}/embedding/'),
  (r'^pos_embedding$', f'{STEM}/positions'),
  (r'^head/', 'params/head/dense/'),
)
RENAMES = {
  'siglip_hf': Dialect('torch', _HF, HALF, HALF),
  'siglip_timm': Dialect('torch', _TIMM, HALF, HALF),
  'siglip_big_vision': Dialect('flax', _BIG_VISION, HALF, HALF),
}


def _timm(name: str, network: str, size: int = 224, **keys: Any) -> Weights:
  """Return a checkpoint as timm gives it out."""
  return Weights(
    f'https://huggingface.co/timm/{name}/resolve/main/model.safetensors',
    network=network,
    keys=dict(keys, size=(size, size)),
    mean=HALF,
    std=HALF,
    size=size,
    classes=0,
    licence='Apache-2.0',
    trained_on='WebLI: pictures of the web and their texts',
    tried='fixture',
    note='github.com/huggingface/pytorch-image-models, timm/models/vision_transformer.py; no '
    'checksum is published',
  )


WEIGHTS = {
  'siglip_b16': _timm('vit_base_patch16_siglip_224.webli', 'siglip_vit_b16'),
  'siglip_b16_512': _timm('vit_base_patch16_siglip_512.webli', 'siglip_vit_b16', 512),
  'siglip2_b16': _timm('vit_base_patch16_siglip_224.v2_webli', 'siglip_vit_b16'),
  'siglip2_b16_512': _timm('vit_base_patch16_siglip_512.v2_webli', 'siglip_vit_b16', 512),
  # 384 pixels are 27 patches of 14 and 6 pixels more, which the publisher leaves out
  'siglip_so400m14_384': _timm('vit_so400m_patch14_siglip_384.webli', 'siglip_so400m14', 378),
  # its pool is left out: the mean of the patches stands for the picture
  'siglip_gap_so400m14_384': _timm(
    'vit_so400m_patch14_siglip_gap_384.webli', 'siglip_so400m14', 378, pool=''
  ),
  'medsiglip_448': Weights(
    '',
    network='siglip_so400m14',
    keys=dict(size=(448, 448)),
    page='https://huggingface.co/google/medsiglip-448',
    mean=HALF,
    std=HALF,
    size=448,
    classes=0,
    licence="Health AI Developer Foundations' terms of use",
    terms='gated: the terms are accepted with an account',
    trained_on='pictures of chest radiography, skin, eyes, histology, CT and MR, with texts, and '
    'natural ones',
    tried='fixture',
    note='developers.google.com/health-ai-developer-foundations/medsiglip; the names are those of '
    "transformers' SiglipModel. Mean and deviation are SigLIP's, not read for this file",
  ),
}

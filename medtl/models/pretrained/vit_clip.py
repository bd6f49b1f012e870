"""CLIP: OpenAI's and Hugging Face's names, and BiomedCLIP as open_clip saves it."""

from medtl.core.types import Weights
from medtl.models.pretrained.dialects import TORCH_LEAVES, Dialect
from medtl.models.pretrained.vit_names import BACKBONE, POSITIONS, STEM, stages

_MEAN = (0.48145466, 0.4578275, 0.40821073)
_STD = (0.26862954, 0.26130258, 0.27577711)
_OPENAI = (  # OpenAI's names, of the whole model
  (r'^(transformer\.|token_embedding\.|ln_final\.).*', ''),
  (r'^(positional_embedding|text_projection|logit_scale|visual\.proj)$', ''),
  (r'^(input_resolution|context_length|vocab_size)$', ''),  # beside it in the TorchScript
  *stages(r'^visual\.transformer\.resblocks\.{}\.'),
  (r'attn\.in_proj_', 'attention/{query,key,value}.'),
  (r'attn\.out_proj\.', 'attention/out.'),
  (r'mlp\.c_fc\.', 'mlp/up.'),
  (r'mlp\.c_proj\.', 'mlp/down.'),
  (r'ln_(\d)\.', r'norm\1.'),
  (r'^visual\.class_embedding$', f'{STEM}/class_token'),
  (r'^visual\.positional_embedding$', POSITIONS),
  (r'^visual\.conv1\.', f'{STEM}/embedding.'),
  (r'^visual\.ln_pre\.', f'{STEM}/norm.'),
  (r'^visual\.ln_post\.', f'{BACKBONE}/norm.'),
  *TORCH_LEAVES,
)
_CLIP_HF = (  # Hugging Face: CLIPModel, CLIPVisionModel, …WithProjection
  (r'^(text_model\.|text_projection\.|visual_projection\.|logit_scale$).*|.*\.position_ids$', ''),
  # the tower alone
  (r'^(embeddings|encoder|pre_layrnorm|post_layernorm)\.', r'vision_model.\1.'),
  *stages(r'^vision_model\.encoder\.layers\.{}\.'),
  (r'self_attn\.q_proj\.', 'attention/query.'),
  (r'self_attn\.k_proj\.', 'attention/key.'),
  (r'self_attn\.v_proj\.', 'attention/value.'),
  (r'self_attn\.out_proj\.', 'attention/out.'),
  (r'mlp\.fc1\.', 'mlp/up.'),
  (r'mlp\.fc2\.', 'mlp/down.'),
  (r'layer_norm(\d)\.', r'norm\1.'),
  (r'^vision_model\.embeddings\.class_embedding$', f'{STEM}/class_token'),
  (r'^vision_model\.embeddings\.position_embedding\.weight$', POSITIONS),
  (r'^vision_model\.embeddings\.patch_embedding\.', f'{STEM}/embedding.'),
  (r'^vision_model\.pre_layrnorm\.', f'{STEM}/norm.'),
  (r'^vision_model\.post_layernorm\.', f'{BACKBONE}/norm.'),
  *TORCH_LEAVES,
)
_KEYS = dict(epsilon=1e-5)
RENAMES = {
  'clip_hf': Dialect('torch', _CLIP_HF, _MEAN, _STD, keys=_KEYS),
  'clip_openai': Dialect('torch', _OPENAI, _MEAN, _STD, keys=_KEYS),
  # the image tower alone
  'clip_visual': Dialect('torch', ((r'^', 'visual.'), *_OPENAI), _MEAN, _STD, keys=_KEYS),
}
_BIOMEDCLIP = 'microsoft/BiomedCLIP-PubMedBERT_256-vit_base_patch16_224'
WEIGHTS = {
  'biomedclip_b16': Weights(
    f'https://huggingface.co/{_BIOMEDCLIP}/resolve/main/open_clip_pytorch_model.bin',
    network='vit_b16',
    mean=_MEAN,
    std=_STD,
    classes=0,
    licence='MIT',
    trained_on='PMC-15M: figures of PubMed Central and their captions',
    tried='fixture',
    note='huggingface.co: the file list and open_clip_config.json of the repository. The publisher '
    'replaced the file under this name and states no checksum: the first download is recorded, '
    'another file than that is refused from then on',
  )
}

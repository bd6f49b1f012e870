"""Vision transformers trained on patients' pictures; their names are those of timm or DINOv2."""

from typing import Any

from medtl.core.types import Weights

_NOT_COMMERCIAL = 'not for commercial use; gated: a form with an account'
_NOT_COMMERCIAL_NOR_SHARED = (
  'not for commercial use, no derivatives, no redistribution; gated: registration'
)


def _by_hand(page: str, network: str, note: str, **more: Any) -> Weights:
  """Return a checkpoint that stands on Hugging Face behind a form."""
  return Weights(
    '', network=network, page=f'https://huggingface.co/{page}', classes=0, note=note, **more
  )


def _retfound(name: str, network: str, trained_on: str) -> Weights:
  """Return a checkpoint of RETFound (Zhou et al. 2023, doi 10.1038/s41586-023-06555-x)."""
  return _by_hand(
    f'YukunZhou/{name}',
    network,
    'github.com/rmaphoh/RETFound, main_finetune.py, README.md and LICENSE. A file of its '
    "fine-tuning has a norm after the mean of the patches: config.model.pool='mean'",
    licence='CC BY-NC 4.0',
    terms=_NOT_COMMERCIAL,
    trained_on=trained_on,
    tried='fixture' if network == 'vit_l16' else 'names',
  )


_MOORFIELDS = 'pictures of the retina, Moorfields Eye Hospital, without labels'
_SHANGHAI = 'pictures of the retina, Shanghai, without labels'
_UNI_NOTE = 'github.com/mahmoodlab/UNI, README.md'
WEIGHTS = {
  'retfound_mae_cfp': _retfound(
    'RETFound_mae_natureCFP', 'vit_l16', 'colour photographs of the fundus, without labels'
  ),
  'retfound_mae_oct': _retfound(
    'RETFound_mae_natureOCT', 'vit_l16', 'OCT of the retina, without labels'
  ),
  'retfound_mae_meh': _retfound('RETFound_mae_meh', 'vit_l16', _MOORFIELDS),
  'retfound_mae_shanghai': _retfound('RETFound_mae_shanghai', 'vit_l16', _SHANGHAI),
  'retfound_dinov2_meh': _retfound('RETFound_dinov2_meh', 'dinov2_vit_l14', _MOORFIELDS),
  'retfound_dinov2_shanghai': _retfound('RETFound_dinov2_shanghai', 'dinov2_vit_l14', _SHANGHAI),
  'uni': _by_hand(
    'MahmoodLab/UNI',
    'uni',
    _UNI_NOTE,
    licence='CC BY-NC-ND 4.0',
    terms=_NOT_COMMERCIAL_NOR_SHARED,
    trained_on='slides of histology, without labels',
    tried='fixture',
  ),
  'uni2_h': _by_hand(
    'MahmoodLab/UNI2-h',
    'uni2_h',
    _UNI_NOTE,
    licence='CC BY-NC-ND 4.0',
    terms=_NOT_COMMERCIAL_NOR_SHARED,
    trained_on='200 million pictures of 350 000 slides (H&E and IHC), without labels',
    tried='fixture',
  ),
  'virchow2': _by_hand(
    'paige-ai/Virchow2',
    'virchow2',
    'huggingface.co: the card and config.json of the repository, as quoted by others',
    licence='CC BY-NC-ND 4.0',
    terms=_NOT_COMMERCIAL_NOR_SHARED,
    trained_on='slides of histology, without labels',
    tried='fixture',
  ),
  'gigapath_tile': _by_hand(
    'prov-gigapath/prov-gigapath',
    'gigapath_tile',
    'github.com/prov-gigapath/prov-gigapath, README.md; the licence is that of the repository of '
    'its code. The encoder of whole slides is not here',
    licence='Apache-2.0',
    terms="gated: the publisher's terms are accepted with an account",
    trained_on='slides of histology, Providence, without labels',
    tried='fixture',
  ),
  'h_optimus_0': _by_hand(
    'bioptimus/H-optimus-0',
    'h_optimus_0',
    'huggingface.co: the card of the repository',
    mean=(0.707223, 0.578729, 0.703617),
    std=(0.211883, 0.230117, 0.177517),
    licence='Apache-2.0',
    trained_on='500 000 slides of histology, without labels',
    tried='fixture',
  ),
}

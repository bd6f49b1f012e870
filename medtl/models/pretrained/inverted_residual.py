"""Names that publishers' MobileNets and EfficientNets have in common."""

from collections.abc import Sequence

from medtl.models.pretrained.dialects import TORCH_LEAVES, Dialect

Renames = tuple[tuple[str, str], ...]

LEAVES: Renames = (  # last of all
  (r'^.*num_batches_tracked$', ''),
  (r'[./]running_mean$|/moving_mean$', '/mean'),
  (r'[./]running_var$|/moving_variance$', '/var'),
  (r'(norm\d?)/gamma$', r'\1/scale'),
  (r'/beta$', '/bias'),
  (r'/depthwise_kernel$', '/kernel'),  # Keras 2
  *TORCH_LEAVES,
  (r'^(backbone/.*/)(mean|var)$', r'batch_stats/\1\2'),
  (r'^(backbone|head)/', r'params/\1/'),
)


def counted(pattern: str, blocks: Sequence[int], first: int = 0) -> Renames:
  """Return renames of blocks that a publisher counts through all stages, from `first`.

  `pattern` has a place for the number; `blocks` is how many there are in each stage.
  """
  renames: list[tuple[str, str]] = []
  for stage, count in enumerate(blocks, 1):
    for block in range(count):
      number = first + len(renames)
      renames.append((pattern.format(number), f'backbone/stage{stage}/block{block}/'))
  return tuple(renames)


def timm(stages: int, top: Renames) -> Dialect:
  """Return timm's names, which count blocks within stages; those of the first do not expand."""
  renames = (
    (r'^conv_stem\.', 'backbone/stem/conv.'),
    (r'^bn1\.', 'backbone/stem/norm.'),
    *top,
    (r'^classifier\.', 'head/dense.'),
    (r'^blocks\.0\.(\d+)\.conv_pw\.', r'backbone/stage1/block\1/project.'),
    (r'^blocks\.0\.(\d+)\.bn2\.', r'backbone/stage1/block\1/norm3.'),
    (r'^blocks\.0\.(\d+)\.bn1\.', r'backbone/stage1/block\1/norm2.'),
    *((rf'^blocks\.{n}\.(\d+)\.', rf'backbone/stage{n + 1}/block\1/') for n in range(stages)),
    (r'/conv_pw\.', '/expand.'),
    (r'/conv_dw\.', '/depthwise.'),
    (r'/conv_pwl\.', '/project.'),
    (r'/se\.conv_(reduce|expand)\.', r'/squeeze_excite/\1.'),
    (r'/bn(\d)\.', r'/norm\1.'),
    *LEAVES,
  )
  return Dialect('torch', renames)

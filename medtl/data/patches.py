"""The language of `data.draw`: what a batch takes of a case, anew in each step.

A draw is an operation with a random stream of its own: (example, random) → Example. Cases may have
different shapes; what is drawn of them has one.
"""

from typing import Annotated

import numpy as np

from medtl.core.annotation import FROM_0_TO_1, together
from medtl.core.types import Example, is_mask
from medtl.data import geometry, transforms

Share = Annotated[float, FROM_0_TO_1]
positive = together('positive whole numbers', lambda size: all(length >= 1 for length in size))


@positive
def patch(
  example: Example, random: np.random.Generator, *size: int, foreground: Share = 0.33
) -> Example:
  """Return a box of `size` voxels at a random place; a case that is smaller is padded first.

  With probability `foreground` the box is centred, as nearly as it fits, on a voxel of the mask
  that is no background (a third of the patches: Isensee et al. 2021, nnU-Net, supplement 2).
  """
  case = transforms.pad(example, *size)
  whole = np.array(case.x.shape[:-1])
  wanted = np.broadcast_to(np.array(size), whole.shape)
  begin = random.integers(0, whole - wanted + 1)
  centred = random.random() < foreground
  if centred and is_mask(case.y) and case.y.any():
    places = np.argwhere(case.y)
    centre = places[random.integers(len(places))]
    begin = np.clip(centre - wanted // 2, 0, whole - wanted)
  return geometry.cut(case, begin.tolist(), wanted.tolist())

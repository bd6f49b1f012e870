"""What all layers of a convolutional network have in common, said once."""

import dataclasses
from typing import Any

import jax.numpy as jnp

from medtl.core.expressions import did_you_mean
from medtl.core.types import MedtlError
from medtl.models.layers import spatial

NORMS = ('batch', 'group')


@dataclasses.dataclass(frozen=True)
class Style:
  """Makes layers, each as a child `name` of the module that calls.

  Raises MedtlError for a number of axes or a norm that there is not.
  """

  ndim: int = 2  # spatial axes: 1, 2 or 3
  # volumes are convolved by kernels of pictures, plane by plane (spatial.convolve_in_planes)
  acs: bool = False
  bias: bool = False  # of the convolutions
  norm: str = 'batch'  # 'batch' | 'group'
  epsilon: float = 1e-5  # of the norms
  momentum: float = 0.9  # what a step keeps of the running statistics
  padding: str | None = None  # None: k // 2 on each side; 'SAME': TensorFlow's
  standardised: bool = False  # kernels (BiT)
  dtype: Any = jnp.float32

  def __post_init__(self) -> None:
    if self.ndim not in (1, 2, 3):
      raise MedtlError(f'ndim={self.ndim}; a convolutional network has 1, 2 or 3 spatial axes')
    if self.acs and self.ndim != 3:
      raise MedtlError(
        f'acs=True is for volumes, but ndim={self.ndim}; leave acs out, or give volumes'
      )
    if self.norm not in NORMS:
      raise MedtlError(f'unknown norm {self.norm!r}; {did_you_mean(self.norm, NORMS)}')

  def taps(self, kernel: int | tuple[int, ...]) -> tuple[int, ...]:
    """Return the size of a kernel along each of its axes."""
    if isinstance(kernel, tuple):
      return kernel
    return (kernel,) * (2 if self.acs else self.ndim)

  def conv(
    self,
    x: Any,
    features: int,
    kernel: int | tuple[int, ...],
    stride: int | tuple[int, ...],
    name: str,
    *,
    bias: bool | None = None,
    padding: str | int | None = None,
    dilation: int = 1,
  ) -> Any:
    """Return x convolved; `bias` and `padding` are the style's where they are None."""
    conv = spatial.Conv(
      features=features,
      kernel=self.taps(kernel),
      stride=stride,
      bias=self.bias if bias is None else bias,
      standardised=self.standardised,
      dtype=self.dtype,
      padding=self.padding if padding is None else padding,
      dilation=dilation,
      name=name,
    )
    return conv(x)

  def depthwise(
    self,
    x: Any,
    kernel: int,
    stride: int,
    name: str,
    *,
    bias: bool | None = None,
    padding: str | int | None = None,
  ) -> Any:
    """Return x convolved channel by channel; None as in `conv`."""
    depthwise = spatial.Depthwise(
      kernel=self.taps(kernel),
      stride=stride,
      bias=self.bias if bias is None else bias,
      dtype=self.dtype,
      padding=self.padding if padding is None else padding,
      name=name,
    )
    return depthwise(x)

  def normed(self, x: Any, train: bool, name: str) -> Any:
    """Return x normalised."""
    return spatial.norm(
      x, train, name, self.norm, self.epsilon, dtype=self.dtype, momentum=self.momentum
    )

"""Phantom OCT B-scans: generated pictures and masks of the macula, for tests, first runs and transfer between scanners.

The anatomy is in `retina.py`; here stand the scanners and the data set. Nothing is read from a file. Pictures are computed
in float64 and stored in 8 bits, as scanners do, so that the same seed gives the same bytes on every machine.
"""

import functools
import hashlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from medtl.core.expressions import did_you_mean
from medtl.core.types import Dataset, Example, MedtlError
from medtl.data import synthetic_retina

VERSION = 1  # part of the fingerprint: raise it when the same seed gives other bytes
CLASSES = ('NORMAL', 'DRUSEN', 'DME', 'CNV')
CACHE = 256 * 2**20  # bytes of rendered scans kept in memory

# how much light a tissue returns (arbitrary units, approximated by eye from public B-scans), in the order of retina.TISSUES
REFLECTS = np.array(
  [
    0.0,
    0.50,
    0.26,
    0.33,
    0.17,
    0.29,
    0.10,
    0.16,
    0.80,
    0.40,
    0.02,
    0.60,
    1.8,
    0.40,
    0.60,
    0.32,
    0.015,
  ]
)


class Scanner(NamedTuple):
  """What a device does to anatomy; mm, µm, and arbitrary units of light."""

  depth: float  # mm of tissue from the picture's top to its bottom
  width: float  # mm
  axial: float  # µm, standard deviation of the axial point spread
  lateral: float  # µm
  looks: float  # frames averaged: the speckle's gamma distribution has this shape
  floor: float  # noise that no light causes
  decay: float  # mm, depth at which the sensitivity has fallen to 1 / e
  gain: float
  gamma: float  # of the display


SCANNERS = {
  'source': Scanner(
    depth=1.92, width=8.8, axial=5, lateral=14, looks=8, floor=0.02, decay=3.0, gain=1.2, gamma=0.8
  ),
  'target': Scanner(
    depth=2.3, width=6.0, axial=9, lateral=22, looks=4, floor=0.035, decay=2.0, gain=1.1, gamma=0.65
  ),
}


def render(
  patient: synthetic_retina.Patient,
  scan: int,
  scanner: str = 'source',
  size: Sequence[int] = (128, 128),
) -> tuple[np.ndarray, np.ndarray]:
  """Return (picture [h, w, 1] float32 in 0 … 1, mask [h, w] uint8 of `retina.TISSUES`) of one B-scan."""
  device, (h, w) = SCANNERS[scanner], size
  rng = synthetic_retina.generator((*patient.key, scan))
  dz, x = (
    1000 * device.depth / h,
    ((np.arange(w) + 0.5) / w - 0.5) * device.width + rng.normal(0, 0.25),
  )
  x = x if patient.eye == 'R' else -x  # the optic disc of a right eye lies on the right
  y = rng.uniform(-0.3, 0.3)
  layer = synthetic_retina.tissues(patient, x, y)
  bruch = (
    1000 * device.depth * rng.uniform(0.42, 0.6)
    - patient.curve * x**2
    + rng.normal(0, 22) * x
    + 6 * _smooth(rng, x, 0.8)
  )
  top = (
    bruch
    - np.cumsum(np.array([layer[name] for name in synthetic_retina.TISSUES[13:0:-1]]), 0)[::-1]
  )
  top = np.concatenate(
    [top, [bruch, bruch + layer['choroid']]]
  )  # [tissue - 1, w], the upper border of each
  z = (np.arange(h)[:, None] + 0.5) * dz
  light, mask = _paint(rng, patient, layer, top, z, dz, x, y)
  picture = _expose(rng, device, light, z, dz, x[1] - x[0])
  picture = picture[..., None].astype(np.float32) / np.float32(255)
  picture.flags.writeable = mask.flags.writeable = False  # load keeps them
  return picture, mask


def _paint(
  rng: np.random.Generator,
  patient: synthetic_retina.Patient,
  layer: dict[str, np.ndarray],
  top: np.ndarray,
  z: np.ndarray,
  dz: float,
  x: np.ndarray,
  y: float,
) -> tuple[np.ndarray, np.ndarray]:
  """Return (light that reaches the device [h, w], mask [h, w]); a pixel that two tissues share has both in proportion."""
  reflects = np.repeat(REFLECTS[:16, None], len(x), 1) * (1 + 0.12 * rng.standard_normal((16, 1)))
  lesion = np.clip(
    (layer['subretinal material'] + 0.5 * layer['sub-RPE deposit'] * len(patient.detachment)) / 60,
    0,
    1,
  )
  reflects[8] *= 1 - 0.8 * lesion  # the ellipsoid zone is lost over a lesion,
  reflects[12] *= 1 - lesion * np.clip(
    0.4 + 0.5 * _smooth(rng, x, 0.15), 0, 0.9
  )  # and the RPE disrupted
  light, mask = np.zeros((len(z), len(x))), np.zeros((len(z), len(x)), np.uint8)
  for index, border in enumerate(top, 1):
    light += (reflects[index] - reflects[index - 1]) * np.clip((z - border) / dz + 0.5, 0, 1)
    mask += z > border
  light *= np.where(
    z > top[13], 1 + 0.4 * _texture(rng, z, x, 45, 0.2), 1 + 0.1 * _texture(rng, z, x, 25, 0.5)
  )
  return _pockets(patient, light, mask, top, z, dz, x, y)


def _pockets(
  patient: synthetic_retina.Patient,
  light: np.ndarray,
  mask: np.ndarray,
  top: np.ndarray,
  z: np.ndarray,
  dz: float,
  x: np.ndarray,
  y: float,
) -> tuple[np.ndarray, np.ndarray]:
  """Add cysts, hyperreflective foci and vessels, then let the light fade on its way (Beer and Lambert)."""
  for x0, y0, radius, height, depth in patient.cysts:
    near = (1 - depth) * top[3] + depth * top[
      6
    ]  # follows the layers, from the INL's top to the ONL's bottom
    height = np.minimum(height, 0.45 * (top[6] - top[3]))
    inside = 1 - np.sqrt(((x - x0) ** 2 + (y - y0) ** 2) / radius**2 + ((z - near) / height) ** 2)
    cover = np.clip(inside * height / dz + 0.5, 0, 1) * ((x - x0) ** 2 + (y - y0) ** 2 < radius**2)
    light += cover * (REFLECTS[16] - light)
    mask[cover > 0.5] = synthetic_retina.LABEL['intraretinal fluid']
  for x0, _, depth in patient.foci[np.abs(patient.foci[:, 1] - y) < 0.15]:
    near = (1 - depth) * top[3] + depth * top[6]
    light += 0.7 * np.exp(-(((x - x0) / 0.03) ** 2) - ((z - near) / 14) ** 2)
  through = np.exp(
    -0.013 * dz * (np.cumsum(light**2, 0) - light**2 / 2)
  )  # the square: mostly the RPE takes light
  for x0, radius, share in patient.vessels:
    through *= 1 - share * np.exp(-(((x - x0) / radius) ** 2)) * (z > top[1])
  return light * through, mask


def _expose(
  rng: np.random.Generator, device: Scanner, light: np.ndarray, z: np.ndarray, dz: float, dx: float
) -> np.ndarray:
  """Return the stored picture [h, w] uint8: speckle, point spread, noise, display."""
  light = light * np.exp(-z / 1000 / device.decay) * rng.uniform(0.8, 1.2)
  light = light * rng.standard_gamma(device.looks, light.shape) / device.looks
  light = _blur(_blur(light, device.axial / dz, 0), device.lateral / abs(1000 * dx), 1)
  light += device.floor * rng.standard_gamma(1.5, light.shape)
  return np.rint(255 * np.clip(device.gain * light, 0, 1) ** device.gamma).astype(np.uint8)


def _blur(light: np.ndarray, sigma: float, axis: int) -> np.ndarray:
  """Spread light by a Gaussian of sigma pixels."""
  reach = max(1, int(np.ceil(3 * sigma)))
  kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / max(sigma, 1e-6)) ** 2)
  n = light.shape[axis]
  padded = np.pad(light, [(reach, reach) if a == axis else (0, 0) for a in range(2)], mode='edge')
  rows = [
    np.take(padded, np.arange(k, k + n), axis) * weight
    for k, weight in enumerate(kernel / kernel.sum())
  ]
  return np.sum(rows, 0)


def _smooth(rng: np.random.Generator, x: np.ndarray, scale: float) -> np.ndarray:
  """Return smooth noise [*x] of about unit variance that varies over `scale`."""
  return _weights(x, scale) @ rng.standard_normal(_count(x, scale))


def _texture(
  rng: np.random.Generator, z: np.ndarray, x: np.ndarray, tall: float, wide: float
) -> np.ndarray:
  grid = rng.standard_normal((_count(z, tall), _count(x, wide)))
  return _weights(z[:, 0], tall) @ grid @ _weights(x, wide).T


def _count(x: np.ndarray, scale: float) -> int:
  return int(np.ptp(x) / scale) + 3


def _weights(x: np.ndarray, scale: float) -> np.ndarray:
  """Return [*x, count]: bells around equidistant knots, each row of unit length."""
  bells = np.exp(
    -0.5 * ((x - x.min())[:, None] / scale - np.arange(_count(x, scale)) + 1) ** 2 / 0.36
  )
  return bells / np.linalg.norm(bells, axis=1, keepdims=True)


def load(
  *,
  patients: int = 200,
  scans: int = 3,
  scanner: str = 'source',
  size: Sequence[int] = (128, 128),
  classes: Sequence[str] = CLASSES,
  target: str = 'label',
  seed: int = 0,
) -> Dataset:
  """Return phantoms: `scans` B-scans of each of `patients` people, the classes in turn, rendered when fetched.

  `target` is 'label' (y is the class) or 'mask' (y [h, w] of `retina.TISSUES`). The people of the two scanners are different.
  """
  _check(patients=patients, scans=scans, scanner=scanner, size=size, classes=classes, target=target)
  if seed < 0:
    raise MedtlError(f'phantom: seed is {seed}; expected 0 or more')
  people = [
    synthetic_retina.draw(
      classes[number % len(classes)], (seed, list(SCANNERS).index(scanner), number)
    )
    for number in range(patients)
  ]
  spacing = (SCANNERS[scanner].depth / size[0], SCANNERS[scanner].width / size[1])
  row = np.arange(patients * scans)
  table = {
    'row': row,
    'y': row // scans % len(classes),
    'patient': np.array([f'{scanner}-{n:05d}' for n in row // scans]),
    'scan': row % scans,
    'device': np.full(len(row), scanner),
    **{
      name: np.array([getattr(person, name) for person in people])[row // scans]
      for name in ('eye', 'age', 'sex')
    },
  }

  @functools.lru_cache(maxsize=max(1, CACHE // (5 * size[0] * size[1])))
  def stored(index: int) -> tuple[np.ndarray, np.ndarray]:
    return render(people[index // scans], index % scans, scanner, size)

  def fetch(index: int) -> Example:
    picture, mask = stored(int(index))
    y = mask if target == 'mask' else table['y'][index].astype(np.int32)
    return Example(picture, y, int(index), spacing)

  asked = dict(
    patients=patients,
    scans=scans,
    scanner=scanner,
    size=tuple(size),
    classes=tuple(classes),
    target=target,
    seed=seed,
  )
  return Dataset(
    fetch,
    len(row),
    synthetic_retina.TISSUES if target == 'mask' else tuple(classes),
    table,
    _facts(asked),
    fingerprint=hashlib.sha256(repr((VERSION, sorted(asked.items()))).encode()).hexdigest(),
  )


def _check(
  *,
  patients: int,
  scans: int,
  scanner: str,
  size: Sequence[int],
  classes: Sequence[str],
  target: str,
) -> None:
  for name, found, known in (
    ('scanner', scanner, tuple(SCANNERS)),
    ('target', target, ('label', 'mask')),
    *(('class', label, CLASSES) for label in classes),
  ):
    if found not in known:
      raise MedtlError(f'phantom: unknown {name} {found!r}; {did_you_mean(str(found), known)}')
  if len(size) != 2 or min(size) < 16 or scans < 1 or patients < len(classes) or not classes:
    raise MedtlError(
      f'phantom: found size={tuple(size)}, scans={scans}, patients={patients} for {len(classes)} classes; '
      'expected (height, width) of at least 16 pixels, at least one scan, and a patient for each class'
    )


def _facts(asked: dict[str, Any]) -> dict[str, Any]:
  return {
    'name': f'OCT phantoms, {asked["scanner"]} scanner',
    'phantom': True,
    'licence': 'generated, no rights reserved',
    'citation': tuple(synthetic_retina.SOURCES.values()),
    'url': '',
    **asked,
  }

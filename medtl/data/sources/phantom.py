"""Phantom OCT B-scans of the macula, pictures and masks, generated for tests and first runs.

Two scanners, 'source' and 'target', let a transfer between devices be tried. The anatomy is in
`synthetic_retina`; here stand the scanners and the data set. Nothing is read from a file. Pictures
are computed in float64 and stored in 8 bits, as scanners do, so that the same seed gives the same
bytes on every machine.
"""

import functools
import hashlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from medtl.core import frames
from medtl.core.expressions import did_you_mean
from medtl.core.types import Dataset, Example, MedtlError
from medtl.data import synthetic_retina
from medtl.data.synthetic_retina import LABEL, TISSUES, Patient

VERSION = 1  # part of the fingerprint: raise it when the same seed gives other bytes
CLASSES = ('NORMAL', 'DRUSEN', 'DME', 'CNV')
CACHE = 256 * 2**20  # bytes of rendered scans kept in memory

# how much light a tissue returns (arbitrary units, approximated by eye from public B-scans)
REFLECTIVITY = {
  'vitreous': 0.0,
  'RNFL': 0.50,
  'GCL': 0.26,
  'IPL': 0.33,
  'INL': 0.17,
  'OPL': 0.29,
  'ONL': 0.10,
  'inner segments': 0.16,
  'ellipsoid zone': 0.80,
  'outer segments': 0.40,
  'subretinal fluid': 0.02,
  'subretinal material': 0.60,
  'RPE': 1.8,
  'sub-RPE deposit': 0.40,
  'choroid': 0.60,
  'sclera': 0.32,
  'intraretinal fluid': 0.015,
}


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


class Plane(NamedTuple):
  """Where the pixels of one B-scan lie in the eye."""

  z: np.ndarray  # [h, 1] µm below the top of the picture
  x: np.ndarray  # [w] mm from the fovea, nasal is positive
  y: float  # mm from the fovea
  dz: float  # µm between rows


Layers = dict[str, np.ndarray]  # tissue → [w], µm


def render(
  patient: Patient, scan: int, scanner: str = 'source', size: Sequence[int] = (128, 128)
) -> tuple[np.ndarray, np.ndarray]:
  """Return (picture [h, w, 1] float32 in 0 … 1, mask [h, w] uint8) of one B-scan.

  The mask's numbers are places in `synthetic_retina.TISSUES`.
  """
  device = SCANNERS[scanner]
  height, width = size
  rng = synthetic_retina.generator((*patient.key, scan))
  dz = 1000 * device.depth / height
  across = ((np.arange(width) + 0.5) / width - 0.5) * device.width
  x = across + rng.normal(0, 0.25)
  x = x if patient.eye == 'R' else -x  # the optic disc of a right eye lies on the right
  y = rng.uniform(-0.3, 0.3)
  z = (np.arange(height)[:, None] + 0.5) * dz
  plane = Plane(z, x, y, dz)
  thickness = synthetic_retina.tissues(patient, x, y)
  tops = _tops(rng, patient, device, thickness, x)
  light, mask = _paint(rng, patient, thickness, tops, plane)
  _add_cysts(patient, light, mask, tops, plane)
  _add_foci(patient, light, tops, plane)
  light = light * _transmission(patient, light, tops, plane)
  stored = _expose(rng, device, light, plane)
  picture = stored[..., None].astype(np.float32) / np.float32(255)
  picture.flags.writeable = mask.flags.writeable = False  # load keeps them
  return picture, mask


def _tops(
  rng: np.random.Generator, patient: Patient, device: Scanner, thickness: Layers, x: np.ndarray
) -> Layers:
  """Return the upper border of each tissue from RNFL to sclera, in µm below the picture's top."""
  level = 1000 * device.depth * rng.uniform(0.42, 0.6)
  bend = patient.curve * x**2
  tilt = rng.normal(0, 22) * x
  waves = 6 * _smooth(rng, x, 0.8)
  bruch = level - bend + tilt + waves
  inner = TISSUES[13:0:-1]  # from Bruch's membrane upwards
  above_bruch = np.cumsum(np.array([thickness[name] for name in inner]), 0)
  tops = dict(zip(reversed(inner), bruch - above_bruch[::-1], strict=True))
  tops['choroid'] = bruch
  tops['sclera'] = bruch + thickness['choroid']
  return tops


def _paint(
  rng: np.random.Generator, patient: Patient, thickness: Layers, tops: Layers, plane: Plane
) -> tuple[np.ndarray, np.ndarray]:
  """Return (the light that the layers return [h, w], mask [h, w]).

  A pixel that two tissues share has the light of both in proportion.
  """
  reflectivity = _reflectivity(rng, patient, thickness, plane.x)
  size = (len(plane.z), len(plane.x))
  light = np.zeros(size)
  mask = np.zeros(size, np.uint8)
  for index, top in enumerate(tops.values(), 1):
    step = reflectivity[index] - reflectivity[index - 1]
    share_below = np.clip((plane.z - top) / plane.dz + 0.5, 0, 1)
    light += step * share_below
    mask += plane.z > top
  choroid = 1 + 0.4 * _texture(rng, plane, 45, 0.2)
  retina = 1 + 0.1 * _texture(rng, plane, 25, 0.5)
  light *= np.where(plane.z > tops['choroid'], choroid, retina)
  return light, mask


def _reflectivity(
  rng: np.random.Generator, patient: Patient, thickness: Layers, x: np.ndarray
) -> np.ndarray:
  """Return [tissue, w]: how much light each tissue from vitreous to sclera returns."""
  mean = np.array([REFLECTIVITY[name] for name in TISSUES[:16]])
  variation = 1 + 0.12 * rng.standard_normal((16, 1))
  reflectivity = np.repeat(mean[:, None], len(x), 1) * variation
  deposit = 0.5 * thickness['sub-RPE deposit'] * len(patient.detachment)
  lesion = np.clip((thickness['subretinal material'] + deposit) / 60, 0, 1)
  # over a lesion the ellipsoid zone is lost and the RPE disrupted
  reflectivity[LABEL['ellipsoid zone']] *= 1 - 0.8 * lesion
  gaps = np.clip(0.4 + 0.5 * _smooth(rng, x, 0.15), 0, 0.9)
  reflectivity[LABEL['RPE']] *= 1 - lesion * gaps
  return reflectivity


def _between(tops: Layers, depth: float) -> np.ndarray:
  """Return [w] in µm: the line at a depth of 0 … 1 from the INL's top to the ONL's bottom."""
  return (1 - depth) * tops['INL'] + depth * tops['inner segments']


def _add_cysts(
  patient: Patient, light: np.ndarray, mask: np.ndarray, tops: Layers, plane: Plane
) -> None:
  """Draw the cysts, which hold intraretinal fluid, into light and mask."""
  room = tops['inner segments'] - tops['INL']
  for x0, y0, radius, height, depth in patient.cysts:
    height = np.minimum(height, 0.45 * room)
    lateral = (plane.x - x0) ** 2 + (plane.y - y0) ** 2
    axial = (plane.z - _between(tops, depth)) / height
    inside = 1 - np.sqrt(lateral / radius**2 + axial**2)
    cover = np.clip(inside * height / plane.dz + 0.5, 0, 1)
    cover *= lateral < radius**2
    light += cover * (REFLECTIVITY['intraretinal fluid'] - light)
    mask[cover > 0.5] = LABEL['intraretinal fluid']


def _add_foci(patient: Patient, light: np.ndarray, tops: Layers, plane: Plane) -> None:
  """Add the hyperreflective foci near the plane to the light."""
  near = np.abs(patient.foci[:, 1] - plane.y) < 0.15
  for x0, _, depth in patient.foci[near]:
    lateral = (plane.x - x0) / 0.03
    axial = (plane.z - _between(tops, depth)) / 14
    light += 0.7 * np.exp(-(lateral**2) - axial**2)


def _transmission(patient: Patient, light: np.ndarray, tops: Layers, plane: Plane) -> np.ndarray:
  """Return the share [h, w] of light that passes tissue (Beer and Lambert) and vessels."""
  absorbed = light**2  # the square, so that mostly the RPE takes light
  absorbed_above = np.cumsum(absorbed, 0) - absorbed / 2
  through = np.exp(-0.013 * plane.dz * absorbed_above)
  below_rnfl = plane.z > tops['GCL']
  for x0, radius, share in patient.vessels:
    profile = np.exp(-(((plane.x - x0) / radius) ** 2))
    through *= 1 - share * profile * below_rnfl
  return through


def _expose(
  rng: np.random.Generator, device: Scanner, light: np.ndarray, plane: Plane
) -> np.ndarray:
  """Return the stored picture [h, w] uint8: speckle, point spread, noise, display."""
  sensitivity = np.exp(-plane.z / 1000 / device.decay)
  light = light * sensitivity * rng.uniform(0.8, 1.2)
  speckle = rng.standard_gamma(device.looks, light.shape)
  light = light * speckle / device.looks
  dx = plane.x[1] - plane.x[0]
  light = _blur(light, device.axial / plane.dz, 0)
  light = _blur(light, device.lateral / abs(1000 * dx), 1)
  light += device.floor * rng.standard_gamma(1.5, light.shape)
  display = np.clip(device.gain * light, 0, 1) ** device.gamma
  return np.rint(255 * display).astype(np.uint8)


def _blur(light: np.ndarray, sigma: float, axis: int) -> np.ndarray:
  """Return light [h, w] blurred along an axis by a Gaussian of sigma pixels."""
  reach = max(1, int(np.ceil(3 * sigma)))
  offsets = np.arange(-reach, reach + 1)
  kernel = np.exp(-0.5 * (offsets / max(sigma, 1e-6)) ** 2)
  size = light.shape[axis]
  margins = [(0, 0), (0, 0)]
  margins[axis] = (reach, reach)
  padded = np.pad(light, margins, mode='edge')
  shifted = []
  for start, weight in enumerate(kernel / kernel.sum()):
    part = np.take(padded, np.arange(start, start + size), axis)
    shifted.append(part * weight)
  return np.sum(shifted, 0)


def _smooth(rng: np.random.Generator, x: np.ndarray, scale: float) -> np.ndarray:
  """Return smooth noise [*x] of about unit variance that varies over `scale`."""
  return _weights(x, scale) @ rng.standard_normal(_count(x, scale))


def _texture(rng: np.random.Generator, plane: Plane, tall: float, wide: float) -> np.ndarray:
  """Return smooth noise [h, w] that varies over `tall` µm and `wide` mm."""
  knots = rng.standard_normal((_count(plane.z, tall), _count(plane.x, wide)))
  rows = _weights(plane.z[:, 0], tall)
  columns = _weights(plane.x, wide)
  return rows @ knots @ columns.T


def _count(x: np.ndarray, scale: float) -> int:
  """Return how many knots, `scale` apart, cover x and a little more."""
  return int(np.ptp(x) / scale) + 3


def _weights(x: np.ndarray, scale: float) -> np.ndarray:
  """Return [*x, knots]: bells around equidistant knots, each row of unit length."""
  place = (x - x.min())[:, None] / scale
  distance = place - np.arange(_count(x, scale)) + 1
  bells = np.exp(-0.5 * distance**2 / 0.36)
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
  """Return phantoms: `scans` B-scans of each of `patients` people, rendered when fetched.

  The classes take turns. x is [h, w, 1] float32 in 0 … 1. `target` is 'label' (y is the class) or
  'mask' (y [h, w] of `synthetic_retina.TISSUES`). The two scanners see different people.
  """
  _check(patients=patients, scans=scans, scanner=scanner, size=size, classes=classes, target=target)
  if seed < 0:
    raise MedtlError(f'phantom: seed is {seed}; expected 0 or more')
  people = []
  for number in range(patients):
    key = (seed, list(SCANNERS).index(scanner), number)
    people.append(synthetic_retina.draw(classes[number % len(classes)], key))
  height, width = size
  spacing = (SCANNERS[scanner].depth / height, SCANNERS[scanner].width / width)
  row = np.arange(patients * scans)
  person = row // scans
  table = {
    'row': row,
    'y': person % len(classes),
    'patient': np.array([f'{scanner}-{number:05d}' for number in person]),
    'scan': row % scans,
    'device': np.full(len(row), scanner),
  }
  for name in ('eye', 'age', 'sex'):
    column = np.array([getattr(patient, name) for patient in people])
    table[name] = column[person]

  @functools.lru_cache(maxsize=max(1, CACHE // (5 * height * width)))
  def stored(index: int) -> tuple[np.ndarray, np.ndarray]:
    return render(people[index // scans], index % scans, scanner, size)

  def fetch(index: int) -> Example:
    picture, mask = stored(int(index))
    y = mask if target == 'mask' else table['y'][index].astype(np.int32)
    return Example(picture, y, int(index), frames.plain(picture.shape[:-1], spacing))

  keys = dict(
    patients=patients,
    scans=scans,
    scanner=scanner,
    size=tuple(size),
    classes=tuple(classes),
    target=target,
    seed=seed,
  )
  content = repr((VERSION, sorted(keys.items())))
  return Dataset(
    fetch=fetch,
    size=len(row),
    classes=TISSUES if target == 'mask' else tuple(classes),
    table=table,
    facts=_facts(keys),
    fingerprint=hashlib.sha256(content.encode()).hexdigest(),
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
  """Raise where a key is none that phantoms can be generated by."""
  _check_known('scanner', scanner, tuple(SCANNERS))
  _check_known('target', target, ('label', 'mask'))
  for label in classes:
    _check_known('class', label, CLASSES)
  if len(size) != 2 or min(size) < 16 or scans < 1 or patients < len(classes) or not classes:
    raise MedtlError(
      f'phantom: found size={tuple(size)}, scans={scans}, patients={patients} for {len(classes)} '
      'classes; expected (height, width) of at least 16 pixels, at least one scan, and a patient '
      'for each class'
    )


def _check_known(name: str, value: str, known: Sequence[str]) -> None:
  """Raise where a key has a value that is not known."""
  if value not in known:
    raise MedtlError(f'phantom: unknown {name} {value!r}; {did_you_mean(str(value), known)}')


def _facts(keys: dict[str, Any]) -> dict[str, Any]:
  """Return what a report says of the data set."""
  return {
    'name': f'OCT phantoms, {keys["scanner"]} scanner',
    'phantom': True,
    'licence': 'generated, no rights reserved',
    'citation': tuple(synthetic_retina.SOURCES.values()),
    'url': '',
    **keys,
  }

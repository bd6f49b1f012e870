"""A phantom macula in µm: layers as published, and the signs that define drusen, diabetic oedema and neovascularisation.

Positions are mm from the fovea: x along the B-scan (nasal is positive), y across B-scans; heights and thicknesses are µm.

Numbers in brackets are SOURCES, each read for the numbers beside which it stands. Approximated without a source:
the photoreceptors' bands, how common and how high drusen, detachments and subretinal material are.
"""

import itertools
from typing import Any, NamedTuple

import numpy as np

SOURCES = {
  1: 'eight layers in the ETDRS sectors, mean ± SD: BMC Ophthalmology 2018;18:169, table 6 (doi:10.1186/s12886-018-0842-y).',
  2: 'choroid under the fovea 359, 328, 276 µm at 20–30, 30–50, 50–99 years, SD 91–135: IOVS abstract, ARVO article 2352731.',
  3: 'choroid 3 mm nasally and temporally against the centre, 194, 268 and 363 µm: doi:10.4103/jovr.jovr_148_16.',
  4: 'base of drusen on OCT 117 ± 71 … 296 ± 125 µm for four sizes on colour pictures: IOVS abstract, ARVO article 2148979.',
  5: 'central subfield 452 ± 115 µm in cystoid oedema: Turk J Ophthalmol 2019;49:194 (doi:10.4274/tjo.galenos.2018.19616).',
  6: 'cystoid spaces lie in inner nuclear and outer plexiform layer: J Diabetes Res 2013:920713 (doi:10.1155/2013/920713).',
  7: 'the slope of the ganglion cell layer with age (its sign and significance only): PMC5963176.',
}

TISSUES = (
  'vitreous',
  'RNFL',
  'GCL',
  'IPL',
  'INL',
  'OPL',
  'ONL',
  'inner segments',
  'ellipsoid zone',
  'outer segments',
  'subretinal fluid',
  'subretinal material',
  'RPE',
  'sub-RPE deposit',
  'choroid',
  'sclera',
  'intraretinal fluid',
)
LABEL = {name: index for index, name in enumerate(TISSUES)}

LAYERS = ('RNFL', 'GCL', 'IPL', 'INL', 'OPL', 'ONL', 'photoreceptors and RPE', 'RPE')
# [1] µm: fovea (within 0.5 mm), pericentral (0.5–1.5 mm), peripheral (1.5–3 mm); the nasal and the temporal sectors
NASAL = np.array(
  [
    [10.78, 20.11, 46.12],
    [12.31, 50.12, 40.48],
    [18.28, 42.34, 31.20],
    [15.27, 38.48, 35.07],
    [23.48, 31.87, 28.20],
    [88.44, 72.52, 55.87],
    [90.19, 83.94, 79.84],
    [17.50, 16.30, 14.18],
  ]
)
TEMPORAL = np.array(
  [
    [10.78, 16.82, 19.21],
    [12.31, 46.66, 36.92],
    [18.28, 41.01, 32.61],
    [15.27, 36.48, 33.90],
    [23.48, 31.14, 26.37],
    [88.44, 70.02, 55.80],
    [90.19, 82.60, 79.84],
    [17.50, 15.10, 13.50],
  ]
)
SPREAD = (
  np.array([2.32, 6.04, 3.84, 4.09, 8.27, 11.54, 3.27, 1.99]) / NASAL[:, 1]
)  # SD / mean, pericentral nasal
SECTORS = (0.0, 0.5, 1.5, 3.0)
BANDS = {
  'inner segments': 0.34,
  'ellipsoid zone': 0.24,
  'outer segments': 0.42,
}  # shares of the photoreceptors


class Patient(NamedTuple):
  """One eye. Lesions are rows of (x, y, radius in mm, height in µm); cysts and foci have a place between two layers."""

  label: str
  age: int
  sex: str
  eye: str
  key: tuple[int, ...]  # of its random numbers; a scan's are (*key, scan)
  factors: np.ndarray  # [layer], thickness against the mean
  pit: float  # width of the foveal pit against the mean
  curve: float  # µm / mm², how the retina bends
  choroid: float  # µm under the fovea
  drusen: np.ndarray  # [n, 4] between RPE and Bruch's membrane
  detachment: np.ndarray  # [n, 4] of the RPE
  material: np.ndarray  # [n, 4] subretinal hyperreflective material
  fluid: np.ndarray  # [n, 4] subretinal
  swelling: np.ndarray  # [n, 4] of inner nuclear to outer nuclear layer
  cysts: (
    np.ndarray
  )  # [n, 5] x, y, radius, height, depth 0 … 1 from the INL's top to the ONL's bottom
  foci: np.ndarray  # [n, 3] x, y, depth as above: hyperreflective dots
  vessels: np.ndarray  # [n, 3] x, radius, share of light taken


def basis(r: np.ndarray) -> np.ndarray:
  """Return [3, *r]: how much of the thickness at eccentricity r (mm) is that of pit, ring and periphery; the sum is 1."""
  pit, far = np.exp(-((r / 0.6) ** 2)), 1 / (1 + np.exp(-(r - 1.6) / 0.25))
  return np.stack([pit, 1 - pit - far, far])


def _coefficients(means: np.ndarray) -> np.ndarray:
  """Return [layer, 3] such that averages over the sectors' areas are the published means.

  At the centre the ganglion cells would be negative: they are cut off at 0, and their sector is some 4 µm too thick.
  """
  average = []
  for low, high in itertools.pairwise(SECTORS):
    r = np.linspace(low, high, 201)
    average.append((basis(r) * r).sum(1) / r.sum())
  return np.maximum(np.linalg.solve(np.array(average), means.T).T, 0)


_NASAL, _TEMPORAL = _coefficients(NASAL), _coefficients(TEMPORAL)


def thickness(x: np.ndarray, y: float, pit: float = 1.0) -> np.ndarray:
  """Return [layer, *x] in µm: the mean healthy eye."""
  nasal = 1 / (1 + np.exp(-x / 0.15))
  weight = basis(np.hypot(x, y) / pit)
  return (_NASAL @ weight) * nasal + (_TEMPORAL @ weight) * (1 - nasal)


def domes(x: np.ndarray, y: float, lesions: np.ndarray, power: float = 1.0) -> np.ndarray:
  """Return [*x] in µm: the highest of the domes where the scan at y cuts them."""
  if not len(lesions):
    return np.zeros_like(x)
  x0, y0, radius, height = lesions.T[:, :, None]
  return (height * np.maximum(1 - ((x - x0) ** 2 + (y - y0) ** 2) / radius**2, 0) ** power).max(0)


def _spread(values: np.ndarray, sigma: float) -> np.ndarray:
  reach = int(2 * sigma) + 1
  kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
  return np.convolve(np.pad(values, reach, mode='edge'), kernel / kernel.sum(), 'valid')


def tissues(patient: Patient, x: np.ndarray, y: float) -> dict[str, np.ndarray]:
  """Return {name: [*x]} in µm, from RNFL to choroid, of the scan at y."""
  layer = dict(zip(LAYERS, thickness(x, y, patient.pit) * patient.factors[:, None], strict=True))
  deposit = np.maximum(domes(x, y, patient.drusen), domes(x, y, patient.detachment, 0.7))
  material, fluid = domes(x, y, patient.material), domes(x, y, patient.fluid)
  swollen, raised = domes(x, y, patient.swelling, 2.0), deposit + material + fluid
  receptors = layer.pop('photoreceptors and RPE') - layer['RPE']
  layer |= {name: share * receptors for name, share in BANDS.items()}
  for name, share in (('INL', 0.35), ('OPL', 0.2), ('ONL', 0.45)):
    layer[name] = layer[name] + share * swollen
  lift = _spread(raised, 0.3 / abs(x[1] - x[0]))  # the inner retina bridges what is below;
  layer['ONL'] = np.maximum(
    layer['ONL'] + lift - raised, 0.25 * layer['ONL']
  )  # the outer nuclear layer makes room
  edge = np.interp(x, (-3.0, 0.0, 3.0), (268 / 363, 1.0, 194 / 363))  # [3]
  layer |= {
    'subretinal fluid': fluid,
    'subretinal material': material,
    'sub-RPE deposit': deposit,
    'choroid': patient.choroid * edge,
  }
  return {name: layer[name] for name in TISSUES[1:15]}


def draw(label: str, key: tuple[int, ...]) -> Patient:
  """Return the patient that (label, key) stand for; NORMAL, DRUSEN, DME or CNV."""
  rng = generator(key)
  low, high = {'NORMAL': (30, 85), 'DRUSEN': (52, 90), 'DME': (35, 78), 'CNV': (58, 92)}[label]
  age = int(rng.integers(low, high))
  factors = 1 + SPREAD * np.clip(rng.standard_normal(len(LAYERS)), -2, 2)
  factors[1] *= 1 - 0.002 * (age - 50)  # [7], the size is approximated
  choroid = max(
    np.interp(age, (25, 40, 70), (359, 328, 276)) + 90 * rng.standard_normal(), 90
  )  # [2]
  common = dict(
    label=label,
    age=age,
    sex=str(rng.choice(('F', 'M'))),
    eye=str(rng.choice(('L', 'R'))),
    key=key,
    factors=factors,
    pit=rng.uniform(0.85, 1.2),
    curve=rng.normal(7, 5),
    choroid=choroid,
  )
  vessels = np.stack([_away(rng, 5), rng.uniform(0.025, 0.06, 5), rng.uniform(0.2, 0.7, 5)], 1)
  return Patient(**common, vessels=vessels[: rng.integers(1, 6)], **(_NOTHING | _SIGNS[label](rng)))


def generator(key: tuple[int, ...]) -> np.random.Generator:
  """Return the random numbers of a key: a function of it alone, whatever was drawn before."""
  return np.random.Generator(np.random.PCG64(np.random.SeedSequence(key[0], spawn_key=key[1:])))


def _away(rng: np.random.Generator, count: int) -> np.ndarray:
  return rng.choice((-1, 1), count) * rng.uniform(0.6, 3.5, count)  # the fovea has no vessels


def _size(rng: np.random.Generator, low: float, high: float, count: int | None = None) -> Any:
  """Draw log-uniformly but for the ends: many sizes are near the geometric mean, and some are barely visible."""
  return low * (high / low) ** rng.beta(1.5, 1.5, count)


def _drusen(rng: np.random.Generator, count: int, slope: float) -> np.ndarray:
  base = np.clip(0.16 * np.exp(0.45 * rng.standard_normal(count)), 0.08, 0.5)  # [4]
  height = 1000 * base * slope * rng.uniform(0.6, 1.3, count)
  return np.stack(
    [rng.normal(0, 1.1, count), rng.uniform(-0.5, 0.5, count), base / 2, np.minimum(height, 140)], 1
  )


def _normal(rng: np.random.Generator) -> dict[str, np.ndarray]:
  return dict(
    drusen=_drusen(rng, int(rng.integers(0, 12)), 0.08)
  )  # a few small ones are no disease


def _dry(rng: np.random.Generator) -> dict[str, np.ndarray]:
  return dict(drusen=_drusen(rng, int(rng.integers(22, 75)), _size(rng, 0.14, 0.5)))


def _oedema(rng: np.random.Generator) -> dict[str, np.ndarray]:
  x, y, radius = rng.normal(0, 0.7), rng.normal(0, 0.15), rng.uniform(0.7, 2.0)
  height = _size(rng, 30, 450)  # [5] is 195 ± 115 above the healthy eye
  count = int(rng.integers(4, 22))
  across = _size(rng, 0.04, 0.22, count) * (0.7 + height / 450)
  cysts = np.stack(
    [
      x + radius * 0.35 * rng.standard_normal(count),
      y + 0.12 * rng.standard_normal(count),
      across,
      1000 * across * rng.uniform(0.45, 1.1, count),
      rng.uniform(0.1, 0.9, count),
    ],
    1,
  )  # [6]
  count = int(rng.integers(0, 12))
  foci = np.stack(
    [
      x + radius * 0.5 * rng.standard_normal(count),
      rng.uniform(-0.4, 0.4, count),
      rng.random(count),
    ],
    1,
  )
  fluid = np.array([[x, y, radius * 0.5, _size(rng, 20, 120)]])[: rng.random() < 0.12]
  return dict(swelling=np.array([[x, y, radius, height]]), cysts=cysts, foci=foci, fluid=fluid)


def _neovascular(rng: np.random.Generator) -> dict[str, np.ndarray]:
  x, y, radius = rng.normal(0, 0.6), rng.normal(0, 0.12), _size(rng, 0.4, 1.8)
  count = rng.integers(2, 7)
  detachment = np.stack(
    [
      x + radius * 0.5 * rng.standard_normal(count),
      y + 0.1 * rng.standard_normal(count),
      radius * rng.uniform(0.3, 0.8, count),
      _size(rng, 22, 280) * rng.uniform(0.4, 1, count),
    ],
    1,
  )
  material = np.array(
    [
      [
        x + 0.3 * radius * rng.standard_normal(),
        y,
        radius * rng.uniform(0.4, 0.9),
        _size(rng, 25, 190),
      ]
    ]
  )
  fluid = np.array(
    [
      [
        x + 0.5 * radius * rng.standard_normal(),
        y,
        radius * rng.uniform(0.6, 1.4),
        _size(rng, 25, 220),
      ]
    ]
  )
  shows = rng.choice(3, p=(0.35, 0.25, 0.4))  # material, fluid or both
  signs = dict(detachment=detachment, material=material[: shows != 1], fluid=fluid[: shows != 0])
  if rng.random() < 0.5:
    signs['drusen'] = _drusen(rng, int(rng.integers(5, 40)), _size(rng, 0.12, 0.4))
  if rng.random() < 0.3:
    signs |= {name: value for name, value in _oedema(rng).items() if name in ('cysts', 'foci')}
  return signs


_SIGNS = dict(NORMAL=_normal, DRUSEN=_dry, DME=_oedema, CNV=_neovascular)
_NOTHING = dict(
  drusen=np.zeros((0, 4)),
  detachment=np.zeros((0, 4)),
  material=np.zeros((0, 4)),
  fluid=np.zeros((0, 4)),
  swelling=np.zeros((0, 4)),
  cysts=np.zeros((0, 5)),
  foci=np.zeros((0, 3)),
)

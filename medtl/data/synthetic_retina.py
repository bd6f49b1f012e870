"""A phantom macula: layers as published, and the signs that define drusen, oedema and CNV.

Positions are mm from the fovea: x along the B-scan (nasal is positive), y across B-scans. Heights
and thicknesses are µm.

Numbers in brackets are SOURCES; each was read for the numbers beside which it stands. Approximated
without a source: the photoreceptors' bands, and how common and how high drusen, detachments and
subretinal material are.
"""

import itertools
from typing import Any, NamedTuple

import numpy as np

SOURCES = {
  1: (
    'eight layers in the ETDRS sectors, mean ± SD: BMC Ophthalmology 2018;18:169, table 6 '
    '(doi:10.1186/s12886-018-0842-y).'
  ),
  2: (
    'choroid under the fovea 359, 328, 276 µm at 20–30, 30–50, 50–99 years, SD 91–135: IOVS '
    'abstract, ARVO article 2352731.'
  ),
  3: (
    'choroid 3 mm nasally and temporally against the centre, 194, 268 and 363 µm: '
    'doi:10.4103/jovr.jovr_148_16.'
  ),
  4: (
    'base of drusen on OCT 117 ± 71 … 296 ± 125 µm for four sizes on colour pictures: IOVS '
    'abstract, ARVO article 2148979.'
  ),
  5: (
    'central subfield 452 ± 115 µm in cystoid oedema: Turk J Ophthalmol 2019;49:194 '
    '(doi:10.4274/tjo.galenos.2018.19616).'
  ),
  6: (
    'cystoid spaces lie in inner nuclear and outer plexiform layer: J Diabetes Res 2013:920713 '
    '(doi:10.1155/2013/920713).'
  ),
  7: (
    'the slope of the ganglion cell layer with age (its sign and significance only): PMC5963176.'
  ),
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
# [1] [layer, sector] µm: fovea (within 0.5 mm), pericentral (0.5–1.5 mm), peripheral (1.5–3 mm)
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
# [layer] SD / mean, pericentral nasal
SPREAD = np.array([2.32, 6.04, 3.84, 4.09, 8.27, 11.54, 3.27, 1.99]) / NASAL[:, 1]
SECTORS = (0.0, 0.5, 1.5, 3.0)  # mm, where one ends and the next begins
# shares of the photoreceptors
BANDS = {'inner segments': 0.34, 'ellipsoid zone': 0.24, 'outer segments': 0.42}
AGES = {'NORMAL': (30, 85), 'DRUSEN': (52, 90), 'DME': (35, 78), 'CNV': (58, 92)}  # years


class Patient(NamedTuple):
  """One eye. Lesions are rows of (x, y, radius in mm, height in µm).

  Cysts and foci have a depth of 0 … 1 from the top of the INL to the bottom of the ONL.
  """

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
  cysts: np.ndarray  # [n, 5] x, y, radius, height, depth
  foci: np.ndarray  # [n, 3] x, y, depth: hyperreflective dots
  vessels: np.ndarray  # [n, 3] x, radius, share of light taken


def basis(r: np.ndarray) -> np.ndarray:
  """Return [3, *r]: the shares of pit, ring and periphery in the thickness at eccentricity r (mm).

  They add up to 1.
  """
  pit = np.exp(-((r / 0.6) ** 2))
  periphery = 1 / (1 + np.exp(-(r - 1.6) / 0.25))
  return np.stack([pit, 1 - pit - periphery, periphery])


def _coefficients(means: np.ndarray) -> np.ndarray:
  """Return [layer, 3] for `basis` such that averages over the sectors' areas are `means`.

  At the centre the ganglion cells would be negative: they are cut off at 0, and their sector is
  some 4 µm too thick.
  """
  averages = []
  for low, high in itertools.pairwise(SECTORS):
    r = np.linspace(low, high, 201)
    weighted = basis(r) * r  # a ring's area grows with r
    averages.append(weighted.sum(1) / r.sum())
  solution = np.linalg.solve(np.array(averages), means.T)
  return np.maximum(solution.T, 0)


_NASAL = _coefficients(NASAL)
_TEMPORAL = _coefficients(TEMPORAL)


def thickness(x: np.ndarray, y: float, pit: float = 1.0) -> np.ndarray:
  """Return [layer, *x] in µm: the mean healthy eye, its foveal pit `pit` times as wide."""
  nasal = 1 / (1 + np.exp(-x / 0.15))
  weights = basis(np.hypot(x, y) / pit)
  return (_NASAL @ weights) * nasal + (_TEMPORAL @ weights) * (1 - nasal)


def domes(x: np.ndarray, y: float, lesions: np.ndarray, power: float = 1.0) -> np.ndarray:
  """Return [*x] in µm: the highest of the dome-shaped lesions [n, 4] where the scan at y cuts them.

  A dome is height (1 − r² / radius²)^power.
  """
  if not len(lesions):
    return np.zeros_like(x)
  x0, y0, radius, height = lesions.T[:, :, None]
  distance = (x - x0) ** 2 + (y - y0) ** 2  # squared
  profile = np.maximum(1 - distance / radius**2, 0)
  return (height * profile**power).max(0)


def _smoothed(values: np.ndarray, sigma: float) -> np.ndarray:
  """Return values [n] smoothed with a Gaussian of sigma samples."""
  reach = int(2 * sigma) + 1
  offsets = np.arange(-reach, reach + 1)
  kernel = np.exp(-0.5 * (offsets / sigma) ** 2)
  padded = np.pad(values, reach, mode='edge')
  return np.convolve(padded, kernel / kernel.sum(), 'valid')


def tissues(patient: Patient, x: np.ndarray, y: float) -> dict[str, np.ndarray]:
  """Return {tissue: thickness [*x] in µm}, from RNFL to choroid, of the scan at y."""
  healthy = thickness(x, y, patient.pit) * patient.factors[:, None]
  layer = dict(zip(LAYERS, healthy, strict=True))
  drusen = domes(x, y, patient.drusen)
  detachment = domes(x, y, patient.detachment, 0.7)
  deposit = np.maximum(drusen, detachment)
  material = domes(x, y, patient.material)
  fluid = domes(x, y, patient.fluid)
  swelling = domes(x, y, patient.swelling, 2.0)
  photoreceptors = layer.pop('photoreceptors and RPE') - layer['RPE']
  for name, share in BANDS.items():
    layer[name] = share * photoreceptors
  for name, share in (('INL', 0.35), ('OPL', 0.2), ('ONL', 0.45)):
    layer[name] = layer[name] + share * swelling
  # the inner retina bridges what is below; the outer nuclear layer makes room
  raised = deposit + material + fluid
  lifted = _smoothed(raised, 0.3 / abs(x[1] - x[0]))
  least = 0.25 * layer['ONL']
  layer['ONL'] = np.maximum(layer['ONL'] + lifted - raised, least)
  layer['subretinal fluid'] = fluid
  layer['subretinal material'] = material
  layer['sub-RPE deposit'] = deposit
  share_of_fovea = np.interp(x, (-3.0, 0.0, 3.0), (268 / 363, 1.0, 194 / 363))  # [3]
  layer['choroid'] = patient.choroid * share_of_fovea
  return {name: layer[name] for name in TISSUES[1:15]}


def draw(label: str, key: tuple[int, ...]) -> Patient:
  """Return the patient that (label, key) stand for; the label is NORMAL, DRUSEN, DME or CNV."""
  rng = generator(key)
  youngest, oldest = AGES[label]
  age = int(rng.integers(youngest, oldest))
  deviations = np.clip(rng.standard_normal(len(LAYERS)), -2, 2)
  factors = 1 + SPREAD * deviations
  factors[1] *= 1 - 0.002 * (age - 50)  # [7], the size is approximated
  choroid_of_age = np.interp(age, (25, 40, 70), (359, 328, 276))  # [2]
  choroid = max(choroid_of_age + 90 * rng.standard_normal(), 90)  # [2]
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
  vessels = _vessels(rng)
  signs = _NOTHING | _SIGNS[label](rng)
  return Patient(**common, vessels=vessels, **signs)


def generator(key: tuple[int, ...]) -> np.random.Generator:
  """Return the random numbers of a key: a function of it alone, whatever was drawn before."""
  seed = np.random.SeedSequence(key[0], spawn_key=key[1:])
  return np.random.Generator(np.random.PCG64(seed))


def _vessels(rng: np.random.Generator) -> np.ndarray:
  """Return 1 … 5 vessels; the fovea has none."""
  side = rng.choice((-1, 1), 5)
  x = side * rng.uniform(0.6, 3.5, 5)
  radius = rng.uniform(0.025, 0.06, 5)
  shadow = rng.uniform(0.2, 0.7, 5)
  count = rng.integers(1, 6)
  return np.stack([x, radius, shadow], 1)[:count]


def _size(rng: np.random.Generator, low: float, high: float, count: int | None = None) -> Any:
  """Draw sizes that are log-uniform but for the ends.

  Many are near the geometric mean, and some are barely visible.
  """
  return low * (high / low) ** rng.beta(1.5, 1.5, count)


def _drusen(rng: np.random.Generator, count: int, slope: float) -> np.ndarray:
  """Return [count, 4]; `slope` is the mean height against the base."""
  base = np.clip(0.16 * np.exp(0.45 * rng.standard_normal(count)), 0.08, 0.5)  # mm [4]
  height = 1000 * base * slope * rng.uniform(0.6, 1.3, count)
  x = rng.normal(0, 1.1, count)
  y = rng.uniform(-0.5, 0.5, count)
  return np.stack([x, y, base / 2, np.minimum(height, 140)], 1)


def _normal(rng: np.random.Generator) -> dict[str, np.ndarray]:
  """Return a few small drusen, which are no disease."""
  count = int(rng.integers(0, 12))
  return dict(drusen=_drusen(rng, count, 0.08))


def _dry(rng: np.random.Generator) -> dict[str, np.ndarray]:
  """Return the many drusen of dry macular degeneration."""
  count = int(rng.integers(22, 75))
  slope = _size(rng, 0.14, 0.5)
  return dict(drusen=_drusen(rng, count, slope))


def _oedema(rng: np.random.Generator) -> dict[str, np.ndarray]:
  """Return the signs of diabetic macular oedema around one centre."""
  x = rng.normal(0, 0.7)
  y = rng.normal(0, 0.15)
  radius = rng.uniform(0.7, 2.0)
  height = _size(rng, 30, 450)  # [5] is 195 ± 115 above the healthy eye
  swelling = np.array([[x, y, radius, height]])
  cysts = _cysts(rng, x, y, radius, height)
  count = int(rng.integers(0, 12))
  foci_x = x + radius * 0.5 * rng.standard_normal(count)
  foci_y = rng.uniform(-0.4, 0.4, count)
  foci = np.stack([foci_x, foci_y, rng.random(count)], 1)
  fluid = np.array([[x, y, radius * 0.5, _size(rng, 20, 120)]])
  has_fluid = rng.random() < 0.12
  return dict(swelling=swelling, cysts=cysts, foci=foci, fluid=fluid[: int(has_fluid)])


def _cysts(
  rng: np.random.Generator, x: float, y: float, radius: float, height: float
) -> np.ndarray:
  """Return [n, 5]: the cystoid spaces [6] of a swelling, larger where it is higher."""
  count = int(rng.integers(4, 22))
  across = _size(rng, 0.04, 0.22, count) * (0.7 + height / 450)
  cyst_x = x + radius * 0.35 * rng.standard_normal(count)
  cyst_y = y + 0.12 * rng.standard_normal(count)
  cyst_height = 1000 * across * rng.uniform(0.45, 1.1, count)
  depth = rng.uniform(0.1, 0.9, count)
  return np.stack([cyst_x, cyst_y, across, cyst_height, depth], 1)


def _neovascular(rng: np.random.Generator) -> dict[str, np.ndarray]:
  """Return the signs of choroidal neovascularisation around one centre.

  These are detachments with subretinal material, fluid or both; often drusen, sometimes cysts.
  """
  x = rng.normal(0, 0.6)
  y = rng.normal(0, 0.12)
  radius = _size(rng, 0.4, 1.8)
  detachment = _detachments(rng, x, y, radius)
  material_x = x + 0.3 * radius * rng.standard_normal()
  material_radius = radius * rng.uniform(0.4, 0.9)
  material = np.array([[material_x, y, material_radius, _size(rng, 25, 190)]])
  fluid_x = x + 0.5 * radius * rng.standard_normal()
  fluid_radius = radius * rng.uniform(0.6, 1.4)
  fluid = np.array([[fluid_x, y, fluid_radius, _size(rng, 25, 220)]])
  shown = rng.choice(('material', 'fluid', 'both'), p=(0.35, 0.25, 0.4))
  signs = {'detachment': detachment}
  if shown != 'fluid':
    signs['material'] = material
  if shown != 'material':
    signs['fluid'] = fluid
  if rng.random() < 0.5:
    count = int(rng.integers(5, 40))
    slope = _size(rng, 0.12, 0.4)
    signs['drusen'] = _drusen(rng, count, slope)
  if rng.random() < 0.3:
    oedema = _oedema(rng)
    signs['cysts'] = oedema['cysts']
    signs['foci'] = oedema['foci']
  return signs


def _detachments(rng: np.random.Generator, x: float, y: float, radius: float) -> np.ndarray:
  """Return [n, 4]: the detachments of the RPE around a centre."""
  count = rng.integers(2, 7)
  own_x = x + radius * 0.5 * rng.standard_normal(count)
  own_y = y + 0.1 * rng.standard_normal(count)
  own_radius = radius * rng.uniform(0.3, 0.8, count)
  height = _size(rng, 22, 280) * rng.uniform(0.4, 1, count)
  return np.stack([own_x, own_y, own_radius, height], 1)


_SIGNS = dict(NORMAL=_normal, DRUSEN=_dry, DME=_oedema, CNV=_neovascular)
_COLUMNS = dict(drusen=4, detachment=4, material=4, fluid=4, swelling=4, cysts=5, foci=3)
_NOTHING = {sign: np.zeros((0, columns)) for sign, columns in _COLUMNS.items()}

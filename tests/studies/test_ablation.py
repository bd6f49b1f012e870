"""Studies: a sweep changes only known keys, folds are pooled, rows are compared pair by pair."""

import csv
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from medtl import data, main
from medtl.core.types import MedtlError
from medtl.evaluation import intervals as interval_module
from medtl.evaluation import metrics, predictions
from medtl.report import comparison
from medtl.run import assemble, predict, run_data, run_folder, train
from medtl.studies import ablation, folds

ROOT = Path(__file__).parents[2]
EXPERIMENTS = [
  path
  for path in sorted((ROOT / 'experiments').glob('[!_]*.py'))
  if 'def sweep(' in path.read_text()
]


@pytest.mark.parametrize('path', EXPERIMENTS, ids=lambda path: path.stem)
def test_every_override_of_every_experiment_is_a_key_of_its_config(path):
  text = path.read_text()
  name = text.split('--config=')[1].split()[0]
  config = run_folder.load_config(str(ROOT / name))
  variants = list(ablation._experiment(path)['sweep'](config))
  names = [name for name, _ in variants]
  assert len(names) == len(set(names)) > 1
  made = [assemble.with_changes(config, changes) for _, changes in variants]
  assert (
    sum(variant.to_dict() != config.to_dict() for variant in made) >= len(made) - 1
  )  # one may be the config itself
  assert f'--sweep=experiments/{path.name}' in text


def test_a_file_that_is_no_experiment_is_explained(tmp_path):
  (tmp_path / 'nothing.py').write_text('')
  with pytest.raises(
    MedtlError, match=r'nothing.py lacks sweep, AXIS, AGAINST; expected a file of experiments'
  ):
    ablation._experiment(tmp_path / 'nothing.py')
  with pytest.raises(
    MedtlError, match=r"no experiment '.*/nothin.py'; did you mean '.*/nothing.py'"
  ):
    ablation._experiment(tmp_path / 'nothin.py')


def interval(value, low, high, p=None):
  return dict(value=value, low=low, high=high, reason='', p=p)


def rows(worse=0.001):
  """Three variants: full, middle a little better, probe worse with this p."""
  made = []
  for name, value, p in (('full', 0.80, 0.4), ('middle', 0.82, None), ('probe', 0.60, worse)):
    best = (
      None if name == 'middle' else {'auroc': interval(value - 0.82, value - 0.9, value - 0.75, p)}
    )
    made.append(
      dict(
        name=name,
        headline=['auroc', 'accuracy'],
        seeds=1,
        images=8,
        patients=4,
        freeze='none',
        live=1000,
        flops=1e9,
        seconds=2.0,
        spans={'train': 1.5, 'save': 0.5},
        metrics=dict(
          auroc=interval(value, 0.5, 0.9),
          accuracy=interval(0.5, 0.4, 0.6),
          ece=interval(0.1, 0.0, 0.2),
        ),
        differences={'best observed': best},
      )
    )
  comparison.correct_p_values(made)
  return made


def test_p_values_are_corrected_within_a_reference_and_the_verdict_keeps_to_them():
  made = rows()
  found = [row['differences']['best observed'] for row in made]
  assert found[1] is None and [found[i]['auroc']['p_holm'] for i in (0, 2)] == [0.4, 0.002]
  assert comparison.verdict(made, 'auroc') == (
    'middle is the best observed (AUROC 0.820 (0.500 to 0.900)); full is not distinguishable from '
    'it; told apart from it: probe (-0.220 [-0.300, -0.150]).'
  )
  assert 'full, probe are not distinguishable' in comparison.verdict(
    rows(worse=0.03), 'auroc'
  )  # 0.06 after correction


def test_a_csv_whose_last_row_is_the_best_and_the_only_reference():
  made = rows()[:2]
  assert [row['name'] for row in csv.DictReader(comparison.csv(made).splitlines())] == [
    'full',
    'middle',
  ]
  assert len(list(csv.DictReader(comparison.csv(made[1:]).splitlines()))) == 1


def test_less_is_better_where_it_is():
  made = rows()
  made[2]['metrics']['ece'] = interval(0.01, 0.0, 0.1)
  assert (
    comparison.extreme(made, 'ece')['name'] == 'probe'
    and comparison.extreme(made, 'auroc')['name'] == 'middle'
  )


def test_holm_by_hand():
  assert interval_module.holm([0.01, 0.02, 0.03, 0.04]) == pytest.approx([0.04, 0.06, 0.06, 0.06])
  assert (
    np.isnan(interval_module.holm([0.01, float('nan')])[1])
    and interval_module.holm([0.01, float('nan')])[0] == 0.01
  )


def test_p_agrees_with_the_interval():
  """Where the 95% interval leaves out 0, p is below 0.05, and the other way round."""
  random = np.random.RandomState(0)
  y = np.arange(60) % 2
  for shift in np.linspace(0, 1.2, 7):
    first, second = (np.stack([-s, s], 1) for s in (random.randn(60) + shift * y, random.randn(60)))
    found = interval_module.difference(first, second, y, dict(auroc=metrics.auroc), resamples=400)[
      'auroc'
    ]
    assert (found.p < 0.05) == (found.low > 0 or found.high < 0) or abs(found.p - 0.05) < 0.02


def test_the_table_the_csv_and_the_page_hold_each_variant(tmp_path):
  made = rows()
  lines = comparison.table(made).splitlines()
  assert len(lines) == 5 and lines[2].startswith('full') and 'p 0.002' in lines[4]
  found = list(csv.DictReader(comparison.csv(made).splitlines()))
  assert [row['name'] for row in found] == ['full', 'middle', 'probe'] and float(
    found[2]['auroc minus best observed p_holm']
  ) == 0.002
  facts = dict(
    title='<T>',
    sentence='s',
    command='c',
    axis='a',
    warnings=[],
    hardware='h',
    versions={'jax': '1'},
    seconds=6.0,
  )
  comparison.write(tmp_path / 'study.html', made, facts, {})
  page = (tmp_path / 'study.html').read_text()
  assert '&lt;T&gt;' in page and page.count('<th scope="row">') == 3 and 'src="http' not in page
  assert comparison.verdict(made, 'auroc')[:30] in page


SWEEP = '''"""Rates: two."""
AXIS = 'learning rate'
AGAINST = ('slow',)


def sweep(config):
  yield 'slow', (('lr', 1e-3),)
  yield 'fast', (('lr', 1e-2),)
'''


@pytest.mark.parametrize(
  ('changes', 'said'),
  [
    (
      "(('data.split.seed', 7),)",
      r'b would be tested on \d+ examples of which \d+ are among the \d+ of a: '
      r'.* on the same test patients',
    ),
    (
      "(('task.kind', 'ordinal'), ('task.loss', 'ordinal'))",
      r"b tells .*'ordinal'.* apart and a .*'multiclass'",
    ),
    ("(('larning_rate', 7),)", r"no config key 'larning_rate' to change"),
    ("()\n  yield '../x', ()", r"sweep.py: the name '../x' becomes that of a folder"),
    ("()\n  yield 'a', ()", r"sweep.py: the name 'a' is given to 2 runs"),
  ],
)
def test_what_cannot_be_compared_is_refused_before_anything_is_trained(tmp_path, changes, said):
  (
    tmp_path / 'sweep.py'
  ).write_text(f'''"""T: t."""\nAXIS, AGAINST = 'x', ()\n\n\ndef sweep(config):
  yield 'a', ()\n  yield 'b', {changes}\n''')
  config = run_folder.load_config(f'{ROOT}/tests/tiny.py')
  with pytest.raises(MedtlError, match=said):
    ablation.ablate(config, tmp_path / 'sweep.py', tmp_path / 'study')
  assert not list((tmp_path).rglob('checkpoints'))


def test_every_fold_and_one_split_are_not_each_other_s_continuation(tmp_path):
  config = run_folder.load_config(f'{ROOT}/tests/tiny.py')
  for folder, made in (('one', 'plan.json'), ('every', 'fold0/plan.json')):
    run_folder.open_or_verify(tmp_path / folder, config)
    (tmp_path / folder / made).parent.mkdir(exist_ok=True)
    (tmp_path / folder / made).write_text('{}')
  with pytest.raises(
    MedtlError,
    match=r'one holds one split of this config, and every fold \(--folds\) is asked for; '
    r'choose another',
  ):
    folds.train_folds(config, tmp_path / 'one')
  with pytest.raises(
    MedtlError, match=r'every holds every fold of this config, and one split is asked for'
  ):
    train.train(config, tmp_path / 'every')
  (tmp_path / 'every' / 'plan.json').write_text('{"folds": [1, 2]}')
  (tmp_path / 'every' / 'numbers.json').write_text('{}')
  with pytest.raises(
    MedtlError, match=r'holds 2 nets, one for each fold; name one of them: --workdir=.*every/fold0'
  ):
    predict.load_trained(config, tmp_path / 'every')
  assert not (tmp_path / 'every' / 'checkpoints').exists()


def test_seeds_as_variants_are_not_run_from_several_seeds(tmp_path):
  config = assemble.with_changes(run_folder.load_config(f'{ROOT}/tests/tiny.py'), (('seeds', 2),))
  with pytest.raises(
    MedtlError, match=r'seeds is 2, but .*seeds.py tells its variants apart by their seed'
  ):
    ablation.ablate(config, ROOT / 'experiments' / 'seeds.py', tmp_path)


def test_only_names_of_the_sweep_are_taken(tmp_path):
  (tmp_path / 'sweep.py').write_text(SWEEP)
  config = run_folder.load_config(f'{ROOT}/tests/tiny.py')
  with pytest.raises(MedtlError, match=r"--only=slwo: .* has no such variant; did you mean 'slow'"):
    ablation.ablate(config, tmp_path / 'sweep.py', tmp_path / 'study', only=['slwo'])


@pytest.mark.parametrize('folder', ['surgical', 'freeze_depth'])
def test_scores_stand_beside_variants_that_freeze_below_a_boundary_alone(tmp_path, folder):
  config = run_folder.load_config(f'{ROOT}/tests/tiny.py')
  sweep = ablation._experiment(ROOT / 'experiments' / f'{folder}.py')['sweep']
  found = []
  for name, changes in sweep(config):
    variant, depth = assemble.with_changes(config, changes), 2
    run_folder.open_or_verify(tmp_path / name, variant)
    found.append(
      ablation._frozen_below(
        config, tmp_path / name, {'depth': depth, 'freeze': variant.phases[-1][0]}
      )
    )
    assert not ablation._frozen_below(
      assemble.with_changes(config, (('model', {'name': 'vit.vit_ti16', 'weights': ''}),)),
      tmp_path / name,
      {'depth': depth, 'freeze': 'depth(2)'},
    )
  assert sum(found) == (1 if folder == 'surgical' else len(found) - 1)  # not the random control


@pytest.fixture
def one_without(tmp_path):
  """Return a config whose label 'b' is 0 in one of 18 pictures, which fold 0 validates on."""
  lines = ['file,a,b', *(f'{number}.png,{number % 2},{int(number > 0)}' for number in range(18))]
  (tmp_path / 'm.csv').write_text('\n'.join(lines))
  for number in range(18):
    picture = np.random.RandomState(number).randint(0, 255, (8, 8)).astype(np.uint8)
    Image.fromarray(picture).save(tmp_path / f'{number}.png')
  base = run_folder.load_config(f'{ROOT}/tests/tiny.py')
  source = dict(name='folder.load', root=str(tmp_path), manifest='m.csv', label=('a', 'b'), ops='')
  for seed in range(20):
    split = dict(by='image', folds=3, fold=0, seed=seed)
    config = assemble.with_changes(
      base,
      (
        ('data', {**source, 'split': split}),
        ('batch', 4),
        ('task', dict(name='classification', kind='multilabel', loss='sigmoid')),
      ),
    )
    if (data.load(**config.data.to_dict())['val'].table['y'][:, 1] == 0).any():
      return config
  raise AssertionError('no seed puts the picture there')


def test_every_fold_is_looked_at_before_the_first_is_trained(one_without, tmp_path, monkeypatch):
  trained = []
  monkeypatch.setattr(
    train,
    'prepare',
    lambda config, *_: run_data.load_data(config) and SimpleNamespace(config=config),
  )
  monkeypatch.setattr(ablation.cost, 'print_plan', lambda *_: None)
  monkeypatch.setattr(train, 'train', lambda config, *_: trained.append(config) or 1 / 0)
  said = (
    r"data.split.fold=1: config.monitor is 'auroc', .*'b' is 1 in all 6 .* not in 1 of all 18.*"
    ' Every fold is trained here'
  )
  with pytest.raises(MedtlError, match=said):
    folds.train_folds(one_without, tmp_path / 'run')
  (tmp_path / 'sweep.py').write_text(SWEEP)
  monkeypatch.setattr(
    ablation,
    'forecast',
    lambda variants, *_: {name: train.prepare(one) for name, (one, _) in variants.items()},
  )
  with pytest.raises(MedtlError, match=said):
    ablation.ablate(one_without, tmp_path / 'sweep.py', tmp_path / 'study', every_fold=True)
  assert not trained
  for study_of in (
    folds.train_folds,
    lambda *keys: ablation.ablate(keys[0], tmp_path / 'sweep.py', keys[1], every_fold=True),
  ):
    with pytest.raises(
      ZeroDivisionError
    ):  # the advice: by the loss it could be chosen in every fold
      study_of(
        assemble.with_changes(one_without, (('monitor', 'loss'),)),
        tmp_path / f'fixed{len(trained)}',
      )
  assert len(trained) == 2


def test_what_is_alike_is_looked_at_once(monkeypatch):
  config, looked = run_folder.load_config(f'{ROOT}/tests/tiny.py'), []
  monkeypatch.setattr(run_data, 'load_data', lambda config: looked.append(config.data.split.fold))
  faster, other = (
    assemble.with_changes(config, (('lr', 0.5),)),
    assemble.with_changes(config, (('monitor', 'f1'),)),
  )
  folds.look_at_folds([config, faster, other], 3)
  assert looked == [0, 1, 2, 0, 1, 2]


@pytest.mark.slow
def test_an_ablation_over_folds_ends_in_one_table_and_repeats_nothing(tmp_path, capsys):
  (tmp_path / 'sweep.py').write_text(SWEEP)
  words = [
    'ablate',
    f'--config={ROOT}/tests/tiny.py',
    f'--sweep={tmp_path}/sweep.py',
    f'--workdir={tmp_path}/study',
    '--folds',
    "--config.phases=(('depth(1.0)', '2 epochs'),)",
    '--config.data.split.folds=3',
  ]
  assert main.main(words) == 0
  rows = json.loads((tmp_path / 'study' / 'study.json').read_text())['rows']
  assert [row['name'] for row in rows] == ['slow', 'fast'] and rows[0]['images'] == 80
  assert (
    rows[0]['differences']['slow'] is None and rows[1]['differences']['slow']['auroc']['p_holm'] > 0
  )
  assert all((tmp_path / 'study' / name).exists() for name in ('study.csv', 'study.html'))
  test = [
    predictions.load(tmp_path / 'study' / name / 'predictions' / 'test.npz').predictions
    for name in ('slow', 'fast')
  ]
  assert np.array_equal(test[0].row, np.arange(80)) and not np.array_equal(
    test[0].score, test[1].score
  )
  capsys.readouterr()
  assert main.main(words) == 0
  assert capsys.readouterr().out.count('is finished already; nothing was trained') == 2
  assert main.main([*words, '--config.seeds=2']) == 0  # the first seed's runs are there already
  said = capsys.readouterr().out
  assert (
    said.count('is finished already; nothing was trained') == 2 and 'means over 2 seeds' in said
  )
  both = json.loads((tmp_path / 'study' / 'study.json').read_text())['rows']
  one, other = (
    predictions.load(tmp_path / 'study' / name / 'predictions' / 'test.npz').predictions
    for name in ('slow', 'slow-seed1')
  )
  assert not np.array_equal(one.score, other.score) and np.array_equal(one.y, other.y)
  assert both[0]['metrics']['auroc']['value'] == pytest.approx(
    (metrics.auroc(one.score, one.y) + metrics.auroc(other.score, other.y)) / 2
  )
  assert (
    both[0]['seconds'] > rows[0]['seconds']
    and 'from seeds 0 to 1' in (tmp_path / 'study' / 'study.html').read_text()
  )


@pytest.mark.slow
def test_folds_compare_out_of_fold_with_the_runs_beside_them(tmp_path):
  words = [
    f'--config={ROOT}/tests/tiny.py',
    f'--workdir={tmp_path}/run',
    '--folds',
    "--config.phases=(('depth(1.0)', '2 epochs'),)",
    '--config.data.split.folds=3',
    "--config.compare=(('fast', (('lr', 0.01),)),)",
  ]
  assert main.main(words) == 0
  beside = json.loads((tmp_path / 'run' / 'numbers.json').read_text())['comparison']
  assert beside[0]['name'] == 'fast' and beside[0]['difference']['auroc']['value'] is not None
  assert (
    'each tested by a net for which it was never used for training or for any choice'
    in (tmp_path / 'run' / 'report.html').read_text()
  )
  (tmp_path / 'in').mkdir()
  Image.fromarray(np.zeros((32, 32), np.uint8)).save(tmp_path / 'in' / 'a.png')
  said = [
    main.main(['predict', f'--workdir={tmp_path}/run{fold}', f'--images={tmp_path}/in'])
    for fold in ('', '/fold0')
  ]
  assert said == [1, 0]  # each fold is a net of its own, as the error says

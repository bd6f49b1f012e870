"""The whole path, through main.

Config → page, a killed run → the same bits, a run folder → predictions elsewhere.
"""

import csv
import dataclasses
import html
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medtl import main
from medtl.core import pytrees
from medtl.core.types import MedtlError
from medtl.data.sources import phantom
from medtl.run import assemble, run_folder, train
from medtl.runtime import files, run_log
from medtl.training.checkpoints import Checkpoints

ROOT = Path(__file__).parents[2]


def test_a_run_folder_holds_all_that_later_programs_need(done):
  names = {path.name for path in done.iterdir()}
  assert names >= {
    'config.json',
    'plan.json',
    'checkpoints',
    'metrics.jsonl',
    'predictions',
    'numbers.json',
    'report.html',
    'provenance.json',
  }
  plan = json.loads((done / 'plan.json').read_text())
  assert (
    plan['phases'][0]['live'] < plan['phases'][1]['live']
    and plan['phases'][0]['flops'] < plan['phases'][0]['flops_full']
  )
  assert sum(side['size'] for side in plan['splits'].values()) == 80
  numbers = json.loads((done / 'numbers.json').read_text())
  assert (
    numbers['unit'] == 'patient'
    and numbers['images'] == 20
    and 0 <= numbers['metrics']['auroc']['value'] <= 1
  )


def test_the_page_stands_alone_and_says_that_phantoms_are_phantoms(done):
  page = (done / 'report.html').read_text()
  assert (
    'phantom' in page and 'src="http' not in page and 'href="http' not in page.split('<body')[0]
  )


def test_the_logs_hold_every_step_once(done):
  steps = [
    record['step'] for record in run_log.records(done / 'metrics.jsonl') if 'train/loss' in record
  ]
  assert steps == list(range(1, len(steps) + 1))
  assert any('val/auroc' in record for record in run_log.records(done / 'metrics.jsonl'))


def test_a_finished_run_is_only_read(done, capsys):
  before = (done / 'numbers.json').stat().st_mtime_ns
  assert main.main([f'--config={ROOT}/tests/tiny.py', f'--workdir={done}']) == 0
  assert (
    'is finished already' in capsys.readouterr().out
    and (done / 'numbers.json').stat().st_mtime_ns == before
  )


def test_the_folder_of_another_config_is_refused(done, capsys):
  assert main.main([f'--config={ROOT}/tests/tiny.py', f'--workdir={done}', '--config.lr=0.5']) == 1
  assert 'lr: 0.001 there, 0.5 asked for' in capsys.readouterr().err


@pytest.mark.parametrize(
  'words',
  [
    ['train'],
    ['train', '--folds'],
    ['ablate', f'--sweep={ROOT}/experiments/seeds.py'],
    ['probe'],
    ['lr_find'],
  ],
  ids=' '.join,
)
def test_where_a_process_works_a_second_one_is_refused(tmp_path, capsys, words):
  folder = tmp_path / 'run'
  with files.exclusive_lock(folder / 'lock'):
    assert main.main([*words, f'--config={ROOT}/tests/tiny.py', f'--workdir={folder}']) == 1
  said = f'error: another process works in {folder} (process {os.getpid()} on '
  assert said in capsys.readouterr().err
  assert [path.name for path in folder.iterdir()] == ['lock']


def test_runs_beside_a_run_and_before_it_are_kept_to_one_process_too(tmp_path, capsys):
  words = [f'--config={ROOT}/tests/tiny.py', f'--workdir={tmp_path}/run']
  files.write(tmp_path / 'run' / 'config.json', '{}')
  with files.exclusive_lock(tmp_path / 'run' / 'compare' / 'scratch' / 'lock'):
    assert main.main([*words, "--config.compare=(('scratch', (('lr', 0.5),)),)"]) == 1
  assert f'another process works in {tmp_path}/run/compare/scratch' in capsys.readouterr().err
  source = run_folder.default_name('tiny.py', run_folder.load_config(words[0].partition('=')[2]))
  with files.exclusive_lock(tmp_path / source / 'lock'):
    assert main.main([*words, f'--config.model.weights=run:{ROOT}/tests/tiny.py']) == 1
  assert f'another process works in {tmp_path / source}' in capsys.readouterr().err


def test_a_finished_run_is_read_while_others_work_on_it(done, capsys):
  with (
    files.exclusive_lock(done / 'lock'),
    files.exclusive_lock(done / 'predictions' / 'other.lock'),
  ):
    assert main.main([f'--config={ROOT}/tests/tiny.py', f'--workdir={done}']) == 0
    assert main.main(['report', f'--workdir={done}']) == 0
  capsys.readouterr()
  with files.exclusive_lock(done / 'predictions' / 'test.lock'):
    assert main.main(['report', f'--workdir={done}']) == 1
  assert f'another process works in {done}/predictions' in capsys.readouterr().err


def test_what_a_killed_process_left_does_not_make_a_folder_foreign(tmp_path, monkeypatch):
  for name in ('lock', 'config.json.123-abcd.part', 'predictions/val.npz.123-abcd.part'):
    (tmp_path / 'run' / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / 'run' / name).write_text('{')
  (tmp_path / 'run' / 'predictions' / 'x').write_text('')
  config = run_folder.load_config(f'{ROOT}/tests/tiny.py')
  with (
    pytest.raises(MedtlError, match='is no run folder and not empty'),
    run_folder.open_unfinished(tmp_path / 'run', config),
  ):
    pass
  shutil.rmtree(tmp_path / 'run' / 'predictions')
  with run_folder.open_unfinished(tmp_path / 'run', config) as to_do:
    assert to_do and sorted(path.name for path in (tmp_path / 'run').iterdir()) == [
      'config.json',
      'lock',
    ]


@pytest.fixture
def copied(done, tmp_path):
  """A finished run that may be damaged; predictions and checkpoints are links."""
  copy = tmp_path / 'copy'
  shutil.copytree(done, copy, copy_function=os.link)
  return copy


@pytest.mark.parametrize(
  'name', ['config.json', 'plan.json', 'provenance.json', 'predictions/val.npz', 'numbers.json']
)
@pytest.mark.parametrize('damage', ['', '{"a": ', '[1]', '{"a": 1}', 'PK\3\4'])
def test_a_damaged_file_is_named_with_what_to_do(copied, capsys, name, damage):
  (copied / name).unlink()
  (copied / name).write_text(damage)
  verb = ['train', f'--config={ROOT}/tests/tiny.py'] if name == 'numbers.json' else ['report']
  assert main.main([*verb, f'--workdir={copied}']) == 1
  said = capsys.readouterr().err
  own = 'put back what it was, or train anew in another --workdir'
  advice = (
    own
    if name == 'config.json'
    else 'delete numbers.json, if it is there, and start the training command again'
  )
  assert said.startswith('error: ') and f'{copied / name}' in said and advice in said


@pytest.mark.parametrize('name', ['plan.json', 'provenance.json'])
def test_a_file_that_a_finished_run_lacks_is_no_reason_to_claim_its_folder(copied, capsys, name):
  (copied / name).unlink()
  before = (copied / 'config.json').read_text()
  assert main.main(['report', f'--workdir={copied}']) == 1
  assert (
    f'{name} is missing, of a run that is finished; delete numbers.json' in capsys.readouterr().err
  )
  assert (
    main.main([f'--config={ROOT}/tests/tiny.py', f'--workdir={copied}', '--config.lr=0.5']) == 1
  )
  assert 'lr: 0.001 there, 0.5 asked for' in capsys.readouterr().err
  assert (copied / 'config.json').read_text() == before


@pytest.mark.slow
def test_following_that_advice_writes_the_files_anew_and_trains_no_step(
  copied, done, capsys, monkeypatch
):
  monkeypatch.setattr(train.cost, 'print_plan', lambda *_: None)  # it compiles
  names = [
    'plan.json',
    'provenance.json',
    'numbers.json',
    'predictions/val.npz',
    'predictions/test.npz',
  ]
  for name in names:
    (copied / name).unlink()
  assert main.main([f'--config={ROOT}/tests/tiny.py', f'--workdir={copied}']) == 0
  assert 'continuing at step' in (said := capsys.readouterr().out) and 'val/auroc' not in said
  assert all((copied / name).exists() for name in names)
  again, first = (run_folder.read(folder, 'numbers.json')['metrics'] for folder in (copied, done))
  assert again == first


def test_a_command_that_failed_leaves_its_folder_to_the_next(tmp_path, capsys):
  words = [f'--config={ROOT}/tests/tiny.py', f'--workdir={tmp_path}/run', '--config.data.sizee=3']
  assert (
    main.main(words) == 1 and "has no key 'sizee'; did you mean 'size'" in capsys.readouterr().err
  )
  assert main.main([*words[:2], '--config.lr=-1.0']) == 1
  assert 'config.lr is -1.0' in capsys.readouterr().err  # and not: the run folder of another config
  (tmp_path / 'mine').mkdir()
  (tmp_path / 'mine' / 'thesis.txt').write_text('x')
  assert main.main([words[0], f'--workdir={tmp_path}/mine']) == 1
  assert 'is no run folder and not empty' in capsys.readouterr().err


def test_what_a_verb_does_not_heed_it_refuses(done, tmp_path, capsys):
  for words, said in (
    (
      ['report', '--config.threshold=youden'],
      "report takes no --config.threshold: the run's own config decides",
    ),
    (['evaluate', '--config.lr=5.0'], 'evaluate takes no --config.lr'),
    (['evaluate', '--name=foo'], '--name=foo is for other data'),
    (['evaluate', '--name=../foo'], 'becomes part of file names'),
    (['predict'], 'predict needs --images=FOLDER'),
  ):
    assert main.main([*words, f'--workdir={done}']) == 1
    assert said in capsys.readouterr().err
  assert not (done / 'report-foo.html').exists()


def test_predict_leaves_out_what_cannot_be_read_when_it_is_told_to(done, tmp_path, capsys):
  pictures(tmp_path / 'in', labelled=False)
  (tmp_path / 'in' / 'broken.png').write_bytes(b'no picture')
  words = [
    'predict',
    f'--workdir={done}',
    f'--images={tmp_path}/in',
    f'--output={tmp_path}/out.csv',
  ]
  assert main.main(words) == 1 and 'set data.skip_unreadable=1' in capsys.readouterr().err
  assert main.main([*words, '--config.data.skip_unreadable=1']) == 0
  assert (
    '8 pictures' in (said := capsys.readouterr().out) and '1 could not be read: broken.png' in said
  )


def test_report_is_written_again_from_the_folder_alone(done, capsys):
  before = json.loads((done / 'numbers.json').read_text())
  (done / 'report.html').unlink()
  assert main.main(['report', f'--workdir={done}']) == 0
  assert (done / 'report.html').exists() and json.loads(
    (done / 'numbers.json').read_text()
  ) == before


def pictures(folder, labelled):
  data = phantom.load(patients=8, scans=1, scanner='source', size=(32, 32), seed=5)
  for i in range(data.size):
    example = data.fetch(i)
    where = folder / (data.classes[example.y] if labelled else '.') / f'{i}.png'
    where.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray((example.x[..., 0] * 255).round().astype(np.uint8)).save(where)
  return data


def test_predict_writes_probabilities_of_unlabelled_pictures(done, tmp_path):
  data = pictures(tmp_path / 'in', labelled=False)
  assert (
    main.main(
      ['predict', f'--workdir={done}', f'--images={tmp_path}/in', f'--output={tmp_path}/out.csv']
    )
    == 0
  )
  rows = list(csv.DictReader((tmp_path / 'out.csv').open()))
  assert len(rows) == data.size and {row['file'] for row in rows} == {
    f'{i}.png' for i in range(data.size)
  }
  for row in rows:
    p = [float(row[name]) for name in data.classes]
    assert abs(sum(p) - 1) < 1e-4 and row['predicted'] == data.classes[int(np.argmax(p))]


def test_external_validation_on_a_labelled_folder(done, tmp_path):
  data = pictures(tmp_path / 'in', labelled=True)
  assert (
    main.main(
      [
        'evaluate',
        f'--workdir={done}',
        '--name=elsewhere',
        '--config.data.name=folder.load',
        f'--config.data.root={tmp_path}/in',
        f'--config.data.classes={data.classes}',
      ]
    )
    == 0
  )
  numbers = json.loads((done / 'numbers-elsewhere.json').read_text())
  assert (
    numbers['images'] == data.size
    and numbers['unit'] == 'image'
    and 'elsewhere' in (done / 'report-elsewhere.html').read_text()
  )
  assert numbers['metrics'] != json.loads((done / 'numbers.json').read_text())['metrics']
  page = (done / 'report-elsewhere.html').read_text()
  repeated = html.unescape(page.partition('To repeat it')[2])
  trained = json.loads((done / 'provenance.json').read_text())['command']
  assert trained in repeated
  workdir = shlex.quote(f'--workdir={done}')
  assert f'evaluate {workdir} --name=elsewhere' in repeated
  classes = shlex.quote(f'--config.data.classes={data.classes}')
  assert f' {classes}' in repeated, 'a shell takes it as it stands'
  assert (
    'generated phantoms: they show' not in page
  )  # a folder of pictures does not say what they are of
  assert main.main(['report', f'--workdir={done}', '--name=elsewhere']) == 0
  assert (done / 'report-elsewhere.html').read_text() == page, (
    'its own facts, not those of the data it was trained on'
  )


def test_external_validation_with_other_classes_is_refused(done, tmp_path, capsys):
  pictures(tmp_path / 'in', labelled=True)
  (tmp_path / 'in' / 'CNV').rename(tmp_path / 'in' / 'AMD')
  other = ['--config.data.name=folder.load', f'--config.data.root={tmp_path}/in']
  assert main.main(['evaluate', f'--workdir={done}', '--name=x', *other]) == 1
  assert "2 labels outside the classes, first 'AMD' of AMD/" in (said := capsys.readouterr().err)
  assert 'there are: CNV, DME, DRUSEN, NORMAL' in said
  assert '--config.data.rename="{\'AMD\': CLASS, …}"' in said


def test_external_validation_with_classes_of_other_names(done, tmp_path, capsys):
  pictures(tmp_path / 'in', labelled=True)
  evaluate = lambda name, **keys: main.main(
    ['evaluate', f'--workdir={done}', f'--name={name}', '--config.data.name=folder.load']
    + [f'--config.data.{key}={value}' for key, value in keys.items()]
  )
  root = tmp_path / 'in'
  assert evaluate('same_names', root=root) == 0
  (root / 'NORMAL').rename(root / 'healthy')
  (root / 'wet').mkdir()
  for number, path in enumerate(sorted((root / 'CNV').iterdir())):
    if number % 2:
      path.rename(root / 'wet' / path.name)
  (root / 'CNV').rename(root / 'AMD')
  names = {'healthy': 'NORMAL', 'wet': 'CNV', 'AMD': 'CNV'}
  assert evaluate('other_names', root=root, rename=names) == 0
  assert 'data.rename: AMD, wet → CNV; healthy → NORMAL' in capsys.readouterr().out
  before, after = (
    json.loads((done / f'numbers-{name}_names.json').read_text()) for name in ('same', 'other')
  )
  assert after['classes'] == before['classes'] and after['confusion'] == before['confusion']
  assert after['metrics']['auroc']['value'] == pytest.approx(before['metrics']['auroc']['value'])
  assert 'AMD, wet → CNV' in (done / 'report-other_names.html').read_text()
  (root / 'AMD').rename(root / 'Grade 1.5')
  dotted = {'Grade 1.5': 'CNV', 'healthy': 'NORMAL', 'wet': 'CNV'}
  assert evaluate('dotted_names', root=root, rename=dotted) == 1
  pairs = tuple(dotted.items())
  assert f'give pairs: --config.data.rename="{pairs}"' in capsys.readouterr().err
  assert evaluate('dotted_names', root=root, rename=pairs) == 0
  dotted_numbers = json.loads((done / 'numbers-dotted_names.json').read_text())
  assert dotted_numbers['confusion'] == before['confusion']
  assert evaluate('x', root=root, rename=pairs[1:]) == 1
  assert '--config.data.rename="((\'Grade 1.5\', CLASS), …)"' in capsys.readouterr().err
  (root / 'Grade 1.5').rename(root / 'AMD')
  capsys.readouterr()
  assert evaluate('x', root=root, rename={'healthyy': 'NORMAL'}) == 1
  assert "no class 'healthyy'; did you mean 'healthy'?" in capsys.readouterr().err
  assert evaluate('x', root=root, rename={'healthy': 'NORMAL'}) == 1
  assert '--config.data.rename="{\'AMD\': CLASS, …}"' in capsys.readouterr().err


def test_evaluating_other_data_as_test_is_refused(done, capsys):
  assert main.main(['evaluate', f'--workdir={done}', '--config.data.seed=9']) == 1
  assert 'needs a name of its own' in capsys.readouterr().err


def launch(folder):
  return subprocess.Popen(
    [
      sys.executable,
      '-m',
      'medtl.main',
      f'--config={ROOT}/tests/tiny.py:long',
      f'--workdir={folder}',
    ],
    cwd=ROOT,
    stdout=subprocess.DEVNULL,
    stderr=subprocess.PIPE,
    env={**os.environ, 'JAX_PLATFORMS': 'cpu'},
  )


def reached(folder, process, step):
  """Wait until the run has logged `step`."""
  while process.poll() is None:
    records = (
      (folder / 'metrics.jsonl').read_text().splitlines()
      if (folder / 'metrics.jsonl').exists()
      else []
    )
    if len(records) > step:
      return
    time.sleep(0.02)
  raise AssertionError(f'ended before it could be killed: {process.stderr.read().decode()[-2000:]}')


def leaves(folder, kind):
  checkpoints = Checkpoints(folder / 'checkpoints')
  found = {
    **pytrees.flatten(checkpoints.params(kind)),
    'step': checkpoints.step(kind),
    'progress': checkpoints.progress(kind),
  }
  checkpoints.close()
  return found


@pytest.mark.slow
def test_killed_twice_and_terminated_once_it_ends_with_the_same_bits(tmp_path):
  whole, killed = tmp_path / 'whole', tmp_path / 'killed'
  assert launch(whole).wait() == 0
  for number, step in ((signal.SIGKILL, 9), (signal.SIGTERM, 22), (signal.SIGKILL, 33)):
    process = launch(killed)
    reached(killed, process, step)
    process.send_signal(number)
    code = process.wait()
    assert code == (143 if number == signal.SIGTERM else -9)
  assert launch(killed).wait() == 0
  for kind in ('latest', 'best'):
    a, b = leaves(whole, kind), leaves(killed, kind)
    assert a.keys() == b.keys() and all(
      np.array_equal(a[path], b[path]) for path in a if path not in ('step', 'progress')
    )
    timeless = lambda progress: dataclasses.replace(progress, spans={})
  assert a['step'] == b['step'] and timeless(a['progress']) == timeless(b['progress'])
  assert (whole / 'numbers.json').read_text() == (killed / 'numbers.json').read_text()
  logs = [
    [
      {name: value for name, value in record.items() if name != 'time'}
      for record in run_log.records(folder / 'metrics.jsonl')
    ]
    for folder in (whole, killed)
  ]
  assert logs[0] == logs[1]


def test_describe_predicts_and_trains_nothing(tmp_path, capsys, monkeypatch):
  monkeypatch.chdir(tmp_path)
  assert main.main(['describe', f'--config={ROOT}/tests/tiny.py', '--config.resamples=51']) == 0
  said = capsys.readouterr().out
  assert (
    'phase 2: freeze depth(3), 9 steps' in said
    and 'from cached activations' in said
    and not list(tmp_path.iterdir())
  )
  phases = [int(seconds) for seconds in re.findall(r'MB, (\d+) s', said)]
  whole, compiling = map(
    int, re.search(r'predicted: (\d+) s, (\d+) s of it to compile', said).groups()
  )
  assert len(phases) == 2 and abs(whole - compiling - sum(phases)) <= 2  # each is rounded
  assert 'head/dense/kernel' not in said


def test_describe_lists_every_parameter_when_it_is_asked_to(tmp_path, capsys, monkeypatch):
  monkeypatch.chdir(tmp_path)
  monkeypatch.setattr(train.cost, 'print_plan', lambda *_: None)
  assert main.main(['describe', f'--config={ROOT}/tests/tiny.py', '--parameters']) == 0
  printed = capsys.readouterr().out
  context = assemble.run_context(run_folder.load_config(f'{ROOT}/tests/tiny.py'))
  leaves = pytrees.flatten(context.params)
  for path, leaf in leaves.items():
    (line,) = re.findall(rf'^\| {path} .*', printed, re.MULTILINE)
    _, shape, _, size, mean, std = [cell.strip() for cell in line.strip('|').split('|')]
    assert shape == str(leaf.shape)
    assert size == f'{leaf.size:,}'
    np.testing.assert_allclose([float(mean), float(std)], [leaf.mean(), leaf.std()], rtol=1e-2)
  assert f'Total: {pytrees.count_parameters(context.params):,}' in printed


def test_a_publisher_s_checkpoint_refuses_numbers_that_are_not_0_to_1():
  config = run_folder.load_config(f'{ROOT}/tests/tiny.py')
  given = (
    ('model', dict(name='efficientnet.efficientnet_lite0', weights='imagenet')),
    ('data.ops', 'rescale(-1000, 400)'),
  )
  with pytest.raises(MedtlError, match=r"-1000 … 400.*'window\(low, high\)'"):
    assemble.run_context(assemble.with_changes(config, given))


def test_weights_of_another_run_are_its_best_checkpoint_and_a_study_keeps_one_source(
  done, tmp_path, monkeypatch
):
  config = run_folder.read_config(done)
  there = Checkpoints(done / 'checkpoints')
  kept = there.params('best')
  there.close()
  made = assemble.run_context(
    assemble.with_changes(config, (('model.weights', f'run:{done}'), ('seed', 7))), done
  )
  ours, theirs = (
    pytrees.flatten({'params': params['backbone'], **extra})
    for params, extra in ((made.params, made.extra), kept)
  )
  assert ours.keys() == theirs.keys() and all(
    np.array_equal(ours[path], theirs[path]) for path in ours
  )
  assert not np.array_equal(
    made.params['head']['dense']['kernel'], kept[0]['head']['dense']['kernel']
  ) and made.source['name'] == str(done)
  with pytest.raises(
    MedtlError,
    match=rf'train it first: python -m medtl.main --config={ROOT}/tests/tiny.py '
    rf'--workdir={tmp_path}/',
  ):
    train.describe(
      assemble.with_changes(config, (('model.weights', f'run:{ROOT}/tests/tiny.py'),)),
      tmp_path / 'x',
    )
  trained = []
  monkeypatch.setattr(train, 'train', lambda config, folder, command: trained.append(folder))
  words = f'{ROOT}/tests/tiny.py'
  name = run_folder.default_name(words, run_folder.load_config(words))
  target = assemble.with_changes(config, (('model.weights', f'run:{words}'),))
  assert (
    train.resolve_pretrained_run(target, tmp_path / 'study' / 'a', '')
    == tmp_path / 'study' / name
    == trained[0]
  )
  shutil.copytree(done, tmp_path / 'study' / name)
  assert (
    train.resolve_pretrained_run(target, tmp_path / 'study' / 'a' / 'fold0', '')
    == tmp_path / 'study' / name
    and len(trained) == 1
  )


@pytest.mark.parametrize(
  ('verb', 'without'),
  [
    ('--help', 'numpy|jax|flax'),
    ('cache', 'jax|flax|optax|orbax|sklearn|matplotlib'),
    ('describe', 'orbax|sklearn|matplotlib|tensorboardX'),
  ],
)
def test_a_verb_imports_what_it_needs(verb, without, tmp_path):
  words = [f'--config={ROOT}/tests/tiny.py'] if verb == 'describe' else []
  code = (
    f'import sys; from medtl import main; sys.exit(main.main({[verb, *words]!r}) or '
    f'sys.stderr.write(" ".join(sys.modules)) * 0)'
  )
  said = subprocess.run(
    [sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True, check=True
  ).stderr
  assert not {name for name in said.split() if re.fullmatch(without, name)}

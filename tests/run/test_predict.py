"""A finished run and other pictures.

What is written reads back under its own name, and what was seen before is said.
"""

import csv
import json
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medtl import main
from medtl.core.types import Dataset, Example, MedtlError, Predictions
from medtl.data.sources import phantom
from medtl.evaluation import predictions
from medtl.run import leakage, predict, run_folder, run_report, train
from medtl.runtime import files
from medtl.tasks import classification

ROOT = Path(__file__).parents[2]
SEEN = dict(
  patients=40, scans=2, scanner='target', size=(32, 32), seed=0
)  # what the tiny run's data are
HOSTILE = [
  'a "b", c.png',
  '=1+1.png',
  '-x.png',
  'two\nlines.png',
  'a\rb.png',
  ' space.png',
  "it's;.png",
  'ümlaut [1].png',
  '',
]


def store(folder, keys=SEEN, side=32, rows=range(80), labelled=True):
  """Store phantoms as pictures, of `side` pixels."""
  data = phantom.load(**keys)
  for row in rows:
    example = data.fetch(row)
    path = folder / (data.classes[example.y] if labelled else '.') / f'{row}.png'
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray((example.x[..., 0] * 255).round().astype(np.uint8)).resize((side, side)).save(
      path
    )


def predicted(tmp_path, monkeypatch, score, classes, kind, names):
  """Return (rows of the csv that predict writes of these scores, its notes), without a net."""
  folder = tmp_path / 'run'
  run_folder.open_or_verify(folder, run_folder.load_config(f'{ROOT}/tests/tiny.py'))
  shown = np.random.RandomState(0).rand(8, len(classes))
  y = (shown > 0.5).astype(int) if kind == 'multilabel' else np.arange(8) % len(classes)
  table = {'row': np.arange(8), 'y': y}
  val = Dataset(lambda i: Example(np.zeros((2, 2, 1)), y[i], i), 8, tuple(classes), table)
  predictions.save(
    folder / 'predictions' / 'val.npz', Predictions(np.arange(8), y, {'score': shown}), val
  )
  task = classification.task(kind, classification.DEFAULT[kind])
  plan = {'classes': list(classes), 'task': dict(task.keys), 'shape': [2, 2, 1]}
  table = {'row': np.arange(len(names)), 'y': np.full(len(names), -1), 'file': np.array(names, str)}
  pictures = Dataset(val.fetch, len(names), (), table, {'notes': [], 'unreadable': []})
  monkeypatch.setattr(predict, 'load_trained', lambda *_: (task, (None, None), {}, {}, plan))
  monkeypatch.setattr(
    predict.other_data,
    'load',
    lambda asked, own, plan: (pictures, {**asked, 'name': 'folder.load'}),
  )
  monkeypatch.setattr(predict.run_data, 'eval_batches', lambda *_: None)
  monkeypatch.setattr(
    predict.predictions,
    'predict',
    lambda *_: Predictions(table['row'], table['y'], {'score': np.array(score)}),
  )
  output = predict.predict(
    run_folder.read_config(folder), folder, tmp_path / 'in', tmp_path / 'out.csv'
  )
  with open(output, newline='', encoding='utf-8') as file:
    found = list(csv.DictReader(file, strict=True))
  return found, (tmp_path / 'out.csv.notes.txt').read_text(encoding='utf-8')


@pytest.mark.parametrize(
  ('classes', 'columns'),
  [
    (('malignant', 'normal, benign'), None),
    (('say "A"', "=cmd|' /C calc'!A0"), None),
    (('file', 'predicted'), ('file_', 'predicted_')),
    (('a\nb', 'a'), None),
    (('[bold]', '-'), None),
  ],
)
def test_each_class_has_its_probability_under_its_own_name(
  tmp_path, monkeypatch, capsys, classes, columns
):
  score = np.random.RandomState(1).dirichlet([1, 1], len(HOSTILE)).astype(np.float32)
  found, notes = predicted(tmp_path, monkeypatch, score, classes, 'binary', HOSTILE)
  file, answer = columns or ('file', 'predicted')
  assert [row[file] for row in found] == HOSTILE and list(found[0]) == [file, answer, *classes]
  for row, p in zip(found, score, strict=True):
    assert [float(row[name]) for name in classes] == pytest.approx(p, abs=1e-6) and row[
      answer
    ] == classes[p.argmax()]
  assert 'which a spreadsheet may take for a formula' in notes and (columns is None) == (
    "what 'file' would be" not in notes
  )
  assert f'P({classes[1]})' in capsys.readouterr().out  # brackets are no markup


def test_a_multilabel_prediction_is_the_set_that_validation_s_thresholds_give(
  tmp_path, monkeypatch
):
  classes, score = ('mass', 'cyst; simple', 'mass'), np.array([[0.99, 0.99, 0.0], [0.0, 0.0, 0.0]])
  found, notes = predicted(tmp_path, monkeypatch, score, classes, 'multilabel', ['a.png', 'b.png'])
  assert list(found[0]) == ['file', 'predicted', 'mass', 'cyst; simple', 'mass (2)']
  assert [row['predicted'] for row in found] == [
    'mass | cyst; simple',
    '',
  ] and "joined by ' | '" in notes
  shown = np.random.RandomState(0).rand(8, 3)
  for name, column in zip(('mass', 'cyst; simple'), shown.T, strict=False):
    cut = (
      column[column > 0.5].min() + column[column <= 0.5].max()
    ) / 2  # between the classes, which it tells apart
    assert f'{name} {cut:.4g}' in notes


def test_an_ordinal_prediction_is_the_most_probable_grade(tmp_path, monkeypatch):
  found, notes = predicted(
    tmp_path, monkeypatch, np.array([[0.4, 0.35, 0.25]]), ('0', '1', '2'), 'ordinal', ['a.png']
  )
  assert found[0]['predicted'] == '0' and 'most probable grade' in notes


def test_names_that_are_not_utf_8_are_written_so_that_everybody_can_read_them(tmp_path):
  broken = b'k\xe4lte.png'.decode('utf-8', 'surrogateescape')
  files.write(tmp_path / 'a.csv', files.csv_text([['file', 'p'], [broken, None], ['x', 0.5]]))
  assert (tmp_path / 'a.csv').read_bytes().decode('utf-8').splitlines() == [
    '"file","p"',
    '"k\\udce4lte.png",""',
    '"x",0.5',
  ]
  assert 'not UTF-8' in predict._doubtful([['file', broken]])[0]


def test_predict_resizes_tells_which_pictures_trained_the_net_and_takes_what_it_says_that_it_takes(
  done, tmp_path, capsys
):
  record = leakage.read(done).table
  rows = [int(name.removeprefix('row ')) for name in record['file']]
  new = [row for row in range(80) if row not in rows]
  store(tmp_path / 'in', rows=[*rows[:3], *new[:9]], labelled=False)
  store(tmp_path / 'in', {**SEEN, 'seed': 3}, side=48, rows=[0, 1], labelled=False)
  words = [
    'predict',
    f'--workdir={done}',
    f'--images={tmp_path}/in',
    f'--output={tmp_path}/deep/new/out.csv',
  ]
  for wrong in ('--config.data.opsx=resize(32)', '--config.data.size=3', '--config.lr=1.0'):
    assert main.main([*words, wrong]) == 1
    assert (
      'it takes --config.data.values, --config.data.ops, --config.data.exif, '
      '--config.data.skip_unreadable' in capsys.readouterr().err
    )
  assert (
    main.main(
      [
        *words,
        '--config.data.ops=window(0, 1)',
        '--config.data.exif=apply',
        '--config.data.skip_unreadable=1',
      ]
    )
    == 0
  )
  said = capsys.readouterr().out
  count = len({*rows[:3], *new[:9], 0, 1})
  known = len({*rows[:3]} - {0, 1})
  assert (
    f'{known} of {count} pictures were used in training or for choices: ' in said
    and f'2 of {count} pictures were resized to 32 × 32' in said
  )
  assert (
    len(list(csv.DictReader((tmp_path / 'deep/new/out.csv').open()))) == count
    and f'{count} pictures: {tmp_path}' in said
  )
  notes = (tmp_path / 'deep/new/out.csv.notes.txt').read_text()
  assert 'were used in training or for choices' in notes and 'were resized' in notes


def test_predict_overwrites_its_own_files_and_no_others(done, tmp_path, capsys):
  store(tmp_path / 'in', rows=[0], labelled=False)
  picture = (tmp_path / 'in' / '0.png').read_bytes()
  (tmp_path / 'mine.csv').write_text('patient,diagnosis\n')
  (tmp_path / 'ours.csv.notes.txt').write_text('dear diary')
  for output, said in (
    ('in', 'is a folder; expected a file, such as --output='),
    ('mine.csv', 'was not written by predict'),
    ('in/0.png', 'was not written by predict'),
    ('mine.csv/x.csv', 'mine.csv is a file and no folder'),
    ('ours.csv', 'ours.csv.notes.txt exists and was not'),
  ):
    assert (
      main.main(
        ['predict', f'--workdir={done}', f'--images={tmp_path}/in', f'--output={tmp_path}/{output}']
      )
      == 1
    )
    assert said in capsys.readouterr().err
  assert (tmp_path / 'in' / '0.png').read_bytes() == picture and (
    tmp_path / 'mine.csv'
  ).read_text() == 'patient,diagnosis\n'
  for path, first in (
    ('old.csv', 'file,predicted,a\n'),
    ('new.csv', '"file","predicted","a"\n'),
    ('renamed.csv', '"file_","predicted"\n'),
    ('empty.csv', ''),
    ('in/predictions.csv', '"file","predicted"'),
  ):
    (tmp_path / path).write_text(first)
    predict._replaceable(tmp_path / path, '"file', 'file,predicted')


def test_the_training_pictures_are_no_other_hospital_s(done, tmp_path, capsys, monkeypatch):
  shutil.copytree(done, tmp_path / 'run')
  store(tmp_path / 'in')
  words = ['evaluate', f'--workdir={tmp_path}/run', '--name=b', f'--config.data.root={tmp_path}/in']
  assert main.main(words) == 1
  said = capsys.readouterr().err
  assert (
    '60 of 80 pictures are among those that this run was trained or chosen on (40 train, 20 val): '
    in said
  )
  assert (
    '.png = row ' in said
    and 'Take them out of the other data, or set --config.data.allow_leak=True' in said
  )
  assert not (tmp_path / 'run' / 'report-b.html').exists()
  assert main.main([*words, '--config.data.allow_leak=True']) == 0
  said, page = capsys.readouterr().out, (tmp_path / 'run' / 'report-b.html').read_text()
  assert '60 of 80 pictures are among those' in said and '60 of 80 pictures are among those' in page
  assert (
    'never used' not in page
    and 'Test set: 80 images, 60 of which were used for training or for a choice' in page
  )
  assert ', tested on in</p>' in page
  counted = page.split('<th scope="row">b</th>')[1].split('</tr>')[0]
  assert counted.count('<td class="n">20</td>') == 4  # images of each class
  next((tmp_path / 'in').rglob('*.png')).unlink()
  assert main.main(words) == 1  # other data than before
  said = capsys.readouterr().err
  assert '--name=b is taken: ' in said and 'choose another name, or remove ' in said
  Path(said.strip().partition('or remove ')[2]).unlink()
  for path in (tmp_path / 'in').rglob('*.png'):
    if f'row {path.stem}' in leakage.read(done).table['file']:
      path.unlink()  # 'Take them out'
  monkeypatch.setattr(predict, 'predictions', lambda *_: None)
  monkeypatch.setattr(run_report.page, 'write', lambda path, facts, *_, **__: made.append(facts))
  made = []
  assert main.main(words) == 0
  assert (
    made[0]['claim'].startswith('never used for training or for any choice')
    and not made[0]['warnings']
  )


def test_the_run_s_data_with_changed_keys_are_no_other_data(done, capsys):
  for key in ('ops=rescale', 'size=(48, 48)', 'keep_gb=0.0'):
    assert main.main(['evaluate', f'--workdir={done}', '--name=b', f'--config.data.{key}']) == 1
    assert (
      '60 of 80 pictures are among those that this run was trained or chosen on'
      in capsys.readouterr().err
    )


def test_an_older_run_makes_no_claim_until_it_is_evaluated_again(
  done, tmp_path, capsys, monkeypatch
):
  folder = tmp_path / 'run'
  shutil.copytree(done, folder)
  (folder / 'trained_on.npz').unlink()
  shutil.rmtree(folder / 'overlap')
  monkeypatch.setattr(predict, 'predictions', lambda *_: None)  # they are there
  monkeypatch.setattr(
    run_report.page, 'write', lambda path, facts, *_, **__: claims.append(facts['claim'])
  )
  claims = []
  assert (
    main.main(['report', f'--workdir={folder}'])
    == main.main(['evaluate', f'--workdir={folder}'])
    == 0
  )
  assert 'could not be checked' in claims[0] and 'never used' not in claims[0]
  assert claims[1].startswith('never used for training or for any choice')
  made, kept = leakage.read(folder), leakage.read(done)
  assert all(np.array_equal(made.table[name], kept.table[name]) for name in leakage.COLUMNS)
  plan = json.loads((folder / 'plan.json').read_text())
  run_folder.write_json(
    folder / 'plan.json', {**plan, 'data': {**plan['data'], 'hash': 'of other pictures'}}
  )
  seen = {name: np.where(column == 'train', 'val', column) for name, column in made.table.items()}
  tested = phantom.load(**SEEN).subset(
    np.setdiff1d(np.arange(80), [int(name.split()[1]) for name in made.table['file']])[:1]
  )
  seen = {
    **seen,
    'identity': np.append(
      seen['identity'][1:],
      leakage.identities(tested, run_folder.read_config(folder).data.to_dict()),
    ),
  }
  leakage.write(folder, leakage.Record(seen, ()))
  assert main.main(['evaluate', f'--workdir={folder}']) == 1
  assert (
    'The data have changed since the run was trained, and were split anew: restore them'
    in capsys.readouterr().err
  )


def test_reports_that_are_asked_for_must_have_been_evaluated(done, capsys):
  for name in ('val', 'train', 'hospital'):
    assert main.main(['report', f'--workdir={done}', f'--name={name}']) == 1
    said = capsys.readouterr().err
    assert f'holds no numbers of other data called {name!r}' in said
    assert f'evaluate --workdir={shlex.quote(str(done))} --name={name} ' in said


def test_other_data_without_labels_are_for_predict(done, tmp_path, capsys):
  store(tmp_path / 'in', {**SEEN, 'seed': 3}, rows=[0], labelled=False)
  words = [
    'evaluate',
    f'--workdir={done}',
    '--name=b',
    '--config.data.name=folder.load',
    f'--config.data.root={tmp_path}/in',
  ]
  assert main.main([*words, '--config.data.label=']) == 1
  said = capsys.readouterr().err
  advice = said.strip().partition('use the verb predict: ')[2]
  assert advice == f'predict --workdir={shlex.quote(str(done))} --images={tmp_path}/in'
  assert main.main([*shlex.split(advice), f'--output={tmp_path}/out.csv']) == 0


def test_a_folder_of_runs_names_them(tmp_path, capsys):
  (tmp_path / 'study' / 'slow').mkdir(parents=True)
  (tmp_path / 'study' / 'slow' / 'config.json').write_text('{}')
  assert main.main(['predict', f'--workdir={tmp_path}/study', '--images=x']) == 1
  assert f'in it there are: {tmp_path}/study/slow' in capsys.readouterr().err


def test_a_run_is_not_tested_on_what_the_run_before_it_was_trained_on(done, monkeypatch):
  config = run_folder.read_config(done)
  facts = {'notes': []}
  data = phantom.load(**SEEN)

  def context(config, origin, like):
    side = Dataset(data.fetch, data.size, data.classes, data.table, facts)
    return type(
      'RunContext',
      (),
      {
        'data': {'train': side, 'test': side.subset(wanted)},
        'remarks': {'grey': []},
        'streams': {},
      },
    )

  monkeypatch.setattr(train.assemble, 'run_context', context)
  rows = sorted(int(name.split()[1]) for name in leakage.read(done).table['file'])
  wanted = np.array(rows[:5])
  run_name = re.escape(str(done))
  said = (
    rf'5 of 5 pictures are among those that {run_name}, where the weights come from, was trained .*'
    rf'Split the data as {run_name} does'
  )
  with pytest.raises(MedtlError, match=said):
    train.prepare(config, done)
  wanted = np.setdiff1d(np.arange(80), rows)  # the advice: the same split
  train.prepare(config, done)
  wanted = np.array(rows[:5])
  train.prepare(
    train.assemble.with_changes(config, (('data', {**config.data.to_dict(), 'allow_leak': True}),)),
    done,
  )

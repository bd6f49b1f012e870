"""UCI Heart Disease: a perceptron on the 13 columns of a cardiologist's table; three hospitals train, one tests.

python -m medtl.main --config=configs/heart_sites.py --config.data.root=heart.csv
"""

from configs import base


def get_config():
  config = base.get_config()
  with config.unlocked():
    config.data = dict(
      name='table.load',
      root='',
      label='num',  # 0 … 4: vessels narrowed by more than half; above 0 is disease
      above=0.0,
      classes=('no disease', 'disease'),
      features=('age', 'trestbps', 'chol', 'thalach', 'oldpeak', 'ca'),
      categories=('sex', 'cp', 'fbs', 'restecg', 'exang', 'slope', 'thal'),
      zero_is_missing=('trestbps', 'chol'),
      patient='row',
      site='hospital',
      split=dict(by='site', folds=5, fold=0, seed=0),
      ops='',
    )
    config.model = dict(name='mlp.mlp', width=32, depth=1, dropout=0.3, weights='')
    config.head = dict(name='linear')
    config.task = dict(name='classification', kind='binary', loss='softmax')
    config.phases = (('none', '30 epochs'),)
    config.batch = 32
    config.lr = 3e-3
    config.decay = 1e-2
    config.workers = 0
  return config

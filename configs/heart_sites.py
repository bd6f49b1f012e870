"""UCI Heart Disease, 13 columns of a table: three hospitals train and choose, the fourth tests.

python -m medtl.main --config=configs/heart_sites.py --config.data.root=FILE.csv
python -m medtl.main --config=configs/heart_sites.py --config.data.root=FILE.csv --folds

Janosi et al. 1989, doi:10.24432/C52P4X, CC BY 4.0. FILE.csv holds the four processed.*.data files
one below the other, with a header line and a column `hospital`: 920 rows, each a patient, 411
without and 509 with disease. The first command tests Cleveland (data.split.test says otherwise),
the second each hospital in turn, in one minute on two cores:

hospital      patients (diseased)   AUROC (95 % interval by patient)   logistic regression
cleveland     303 (139)             0.855 (0.813 to 0.899)             0.834
hungarian     294 (106)             0.884 (0.839 to 0.922)             0.900
switzerland   123 (115)             0.691 (0.457 to 0.913)             0.730
va            200 (149)             0.703 (0.622 to 0.783)             0.729
all, pooled   920 (509)             0.820 (0.791 to 0.846)

The last column is scikit-learn's (C = 1) on the same numbers, training sides and tests: on so few
columns a perceptron is no better. Validation, on patients of the hospitals that train, says 0.902:
it does not tell what another hospital will see. Cholesterol is 0 (missing) for all Swiss patients,
`ca` and `thal` are missing outside Cleveland for most.
"""

from configs import base


def get_config():
  config = base.get_config()
  with config.unlocked():
    config.data = dict(
      name='table.load',
      root='',
      label='num',  # 0 … 4, above 0: a vessel is narrowed by more than half
      above=0.0,
      classes=('no disease', 'disease'),
      features=('age', 'trestbps', 'chol', 'thalach', 'oldpeak', 'ca'),
      categories=('sex', 'cp', 'fbs', 'restecg', 'exang', 'slope', 'thal'),
      zero_is_missing=('trestbps', 'chol'),
      patient='row',
      site='hospital',
      split=dict(by='site', folds=5, fold=0, seed=0),
      licence='CC BY 4.0',
      citation='Janosi et al. (1989), Heart Disease, UCI, doi:10.24432/C52P4X',
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

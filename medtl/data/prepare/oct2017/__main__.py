"""`python -m medtl.data.prepare.oct2017 FOLDER ROOT`."""

import argparse
import sys

from medtl.core.types import MedtlError
from medtl.data.prepare.oct2017 import prepare

if __name__ == '__main__':
  parser = argparse.ArgumentParser(
    prog='python -m medtl.data.prepare.oct2017', description='Prepare OCT2017 as ArrayRecord.'
  )
  parser.add_argument('folder', help="the publisher's folder, which holds train, val and test")
  parser.add_argument('root', help='where prepared data sets lie; writes ROOT/oct2017/1.0.0')
  arguments = parser.parse_args()
  try:
    print(prepare(arguments.folder, arguments.root))
  except MedtlError as error:
    sys.exit(str(error))

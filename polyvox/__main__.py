"""``python -m polyvox``: the command."""

import sys

from training.cli import main

sys.exit(main())

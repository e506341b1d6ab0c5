"""``python -m broker``."""

import sys

from broker import cli

sys.exit(cli.main())

"""``python -m broker``."""

import sys

from broker.cli import main as cli

sys.exit(cli.main())

"""`python -m acn_lightning` is the `acn` command."""

import sys

from acn_lightning.cli import main

sys.exit(main())

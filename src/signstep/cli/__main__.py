"""``python -m signstep.cli``."""

import sys

from signstep.cli import main

sys.exit(main())

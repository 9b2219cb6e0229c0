"""`python -m liveroom` is the command `liveroom`."""

import sys

from liveroom.cli import main

sys.exit(main())

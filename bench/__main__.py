"""`python -m bench`."""

import signal
import sys

from bench.cli import main


def _leave(number: int, _frame: object) -> None:
    """SIGTERM: unwind, so that servers and load processes are closed."""
    raise SystemExit(128 + number)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _leave)
    sys.exit(main(sys.argv[1:]))

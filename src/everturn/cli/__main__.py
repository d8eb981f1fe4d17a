"""The program `everturn`, and `python -m everturn.cli`. To be ended is no failure, also while it loads."""

import os
import signal
import sys
from types import FrameType


def main() -> int:
    """Run the verb of the command line; its exit code."""
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
            signal.signal(number, _leave)
    from everturn.cli import main as program  # noqa: PLC0415 - takes a third of a second

    if signal.getsignal(signal.SIGINT) is _leave:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return program.main()
    except KeyboardInterrupt:  # before the verb or behind it
        return program.EXIT_DONE


def _leave(_signal: int, _frame: FrameType | None) -> None:
    os._exit(0)  # nothing has begun that would have to be ended


if __name__ == "__main__":
    sys.exit(main())

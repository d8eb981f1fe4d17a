"""Become another program, whose life is bound to that of the process that started this one.

`python bound.py PARENT COMMAND…`: Linux kills the program when its parent dies, `kill -9` or not (prctl(2),
PR_SET_PDEATHSIG, which exec keeps). Other systems cannot; there it only becomes the program. Asked for here, in a
process of its own, since nothing may run between fork and exec of a parent with threads.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main(parent: int, command: list[str]) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            sys.exit(f"the process {parent} that started {command[0]} has ended")
    try:
        os.execvp(command[0], command)  # noqa: S606 - what it is for
    except OSError as error:
        sys.exit(f"cannot run {command[0]!r}: {error.strerror}")


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])

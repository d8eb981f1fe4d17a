"""How much work our own code does: time, counted, so that a busy machine changes nothing."""

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any


def work_of(act: Callable[[], object], ours: str = "everturn") -> int:
    """The lines of ours that run during `act`, and the characters that our functions are handed.

    `ours`: a part of the names of our files.
    """
    done = 0

    def called(frame: FrameType, _event: str, _: object) -> Any:
        nonlocal done
        if ours not in frame.f_code.co_filename:
            return None
        done += sum(len(value) for value in frame.f_locals.values() if isinstance(value, str | bytes))
        return ran

    def ran(_frame: FrameType, event: str, _: object) -> Any:
        nonlocal done
        done += event == "line"
        return ran

    before = sys.gettrace()
    sys.settrace(called)
    try:
        act()
    finally:
        sys.settrace(before)
    return done

"""Load by `wrk`, a C program that costs little beside what it measures (https://github.com/wg/wrk)."""

import json
import shutil
import subprocess
import uuid
from dataclasses import dataclass
from pathlib import Path

_SCRIPT = Path(__file__).with_name("chat.lua")
_MESSAGE_CHARS = 200


class NoWrkError(Exception):
    """`wrk` is not installed."""


@dataclass(frozen=True, slots=True)
class Load:
    """What `wrk` saw. Times are milliseconds; `errors` are failed connections and answers of 400 or more."""

    requests: int
    seconds: float
    p50_ms: float
    p90_ms: float
    p99_ms: float
    errors: int

    @property
    def per_second(self) -> float:
        return self.requests / self.seconds


def post_chat(
    url: str, *, connections: int, seconds: float, sessions: int, session: str = "", path: str = "/chat/"
) -> Load:
    """Send new messages over so many connections for so long, in turn to so many sessions. Raises NoWrkError.

    The sessions are new ones, or the one that `session` names. `path` may be another route that takes a message.
    """
    wrk = shutil.which("wrk")
    if wrk is None:
        raise NoWrkError("wrk is not installed: apt install wrk, or brew install wrk")
    name = uuid.uuid4().hex[:12]
    command = [wrk, "-t1", f"-c{connections}", f"-d{seconds:.0f}s", "--timeout", "60s", "-s", str(_SCRIPT), url]
    arguments = [name, str(sessions), str(_MESSAGE_CHARS), session, path]
    done = subprocess.run([*command, "--", *arguments], capture_output=True, text=True, check=True)
    return Load(**json.loads(done.stdout.strip().splitlines()[-1]))

"""One process of a system: started in a group of its own, its output in a file, ended with its starter."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

_BOUND = Path(__file__).with_name("bound.py")


@dataclass(frozen=True, slots=True)
class Command:
    """How a process is started. `listens`: what a person is told of it. `stop_s`: seconds for a gentle stop."""

    name: str
    arguments: Sequence[str]
    environment: Mapping[str, str]
    listens: str
    stop_s: float = 10.0


@dataclass(slots=True)
class Process:
    """A process that runs, or has ended."""

    command: Command
    log: Path
    _popen: "subprocess.Popen[bytes]" = field(repr=False)

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def has_ended(self) -> bool:
        return self._popen.poll() is not None

    @property
    def exit_code(self) -> int | None:
        """How it ended, minus the signal's number if one ended it; None while it runs."""
        return self._popen.poll()

    def wait(self, patience_s: float) -> int:
        """Return its `exit_code` once it has ended. Raises `subprocess.TimeoutExpired` after `patience_s` seconds."""
        return self._popen.wait(patience_s)

    def stop(self) -> None:
        """End it gently; at once if that takes longer than the command allows."""
        self._signal(signal.SIGTERM)
        try:
            self._popen.wait(self.command.stop_s)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """End it as `kill -9` does, with all that it started."""
        self._signal(signal.SIGKILL)
        self._popen.wait()

    def last_lines(self, count: int = 5) -> str:
        return "\n".join(self.log.read_text("utf-8", "replace").splitlines()[-count:])

    def _signal(self, number: signal.Signals) -> None:
        if not self.has_ended:
            os.killpg(self._popen.pid, number)


def start(command: Command, logs: Path, folder: Path) -> Process:
    """Start `command` in `folder`. A Ctrl-C at the terminal does not reach it; the death of this process ends it."""
    log = logs / f"{command.name}.log"
    with log.open("ab") as output:
        popen = subprocess.Popen(
            [sys.executable, "-I", str(_BOUND), str(os.getpid()), *command.arguments],
            cwd=folder,
            env=dict(command.environment),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    return Process(command, log, popen)

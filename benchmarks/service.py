"""A real `everturn up` in a process and a data folder of its own, with the scripted model, and what it costs."""

import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx2

_HOST = "127.0.0.1"
_MODULE = "benchmarks.serve"
_START_S = 60.0
_STOP_S = 60.0
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass(slots=True)
class Service:
    """`with Service(folder) as service:` starts it and waits until it answers; at the end it is stopped."""

    folder: Path
    settings: dict[str, str] = field(default_factory=dict)
    start_s: float = 0.0
    chat_port: int = 0
    memory_port: int = 0
    _process: "subprocess.Popen[bytes] | None" = None

    @property
    def chat_url(self) -> str:
        return f"http://{_HOST}:{self.chat_port}"

    @property
    def memory_url(self) -> str:
        return f"http://{_HOST}:{self.memory_port}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def __enter__(self) -> Self:
        begun = time.perf_counter()
        self.chat_port, self.memory_port = _free_port(), _free_port()
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("EVERTURN_", "GEMINI_"))},
            "EVERTURN_DATA_DIR": str(self.folder / "data"),
            "EVERTURN_HOST": _HOST,
            "EVERTURN_CHAT_PORT": str(self.chat_port),
            "EVERTURN_MEMORY_PORT": str(self.memory_port),
            **self.settings,
        }
        with (self.folder / "log.jsonl").open("ab") as log:
            self._process = subprocess.Popen([sys.executable, "-m", _MODULE], env=environment, stdout=log, stderr=log)
        self._wait_until_ready(begun + _START_S)
        self.start_s = time.perf_counter() - begun
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def kill(self) -> None:
        """End it as a crash would."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def cpu_s(self) -> float:
        """Seconds of CPU, user and system, since the start (proc(5), /proc/pid/stat fields 14 and 15)."""
        fields = Path(f"/proc/{self.pid}/stat").read_text("ascii").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S

    def rss_mb(self) -> float:
        """Resident memory now, in MB (10^6 bytes)."""
        lines = Path(f"/proc/{self.pid}/status").read_text("ascii").splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:")) * 1024 / 1e6

    def stored_mb(self) -> float:
        """What lies in the data folder, in MB (10^6 bytes)."""
        return sum(file.stat().st_size for file in (self.folder / "data").rglob("*") if file.is_file()) / 1e6

    def metric(self, name: str, *, memory: bool = False) -> float:
        """The sum of a metric over its labels, of the chat service or of the memory service."""
        text = httpx2.get(f"{self.memory_url if memory else self.chat_url}/metrics", trust_env=False).text
        lines = [line for line in text.splitlines() if line.startswith((f"{name} ", f"{name}{{"))]
        return sum(float(line.rpartition(" ")[2]) for line in lines)

    def say(self, text: str, session: str, **headers: str) -> dict[str, Any]:
        """One turn by one request."""
        body = {"user_id": session, "text": text, "metadata": {"session_id": session}}
        response = httpx2.post(f"{self.chat_url}/chat/", json=body, headers=headers, timeout=60, trust_env=False)
        response.raise_for_status()
        return dict(response.json())

    def _wait_until_ready(self, deadline: float) -> None:
        assert self._process is not None
        while True:
            with contextlib.suppress(httpx2.TransportError):
                if httpx2.get(f"{self.chat_url}/readyz", trust_env=False).status_code == 200:
                    return
            if self._process.poll() is not None:
                raise RuntimeError(f"the service ended with {self._process.returncode}: see {self.folder}/log.jsonl")
            if time.perf_counter() > deadline:
                raise RuntimeError(f"the service was not ready within {_START_S:g} s")
            pause(0.01)


def pause(seconds: float) -> None:
    """Give way to the process that is waited for."""
    select.select([], [], [], seconds)


@contextlib.contextmanager
def started(**settings: str) -> Iterator[Service]:
    """A running service in a folder of its own, which is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="everturn-bench-") as folder, Service(Path(folder), settings) as service:
        yield service


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((_HOST, 0))
        return int(probe.getsockname()[1])

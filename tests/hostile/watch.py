"""What an attack costs the others: memory and connections of the process, and how long a small request waits."""

import contextlib
import os
import socket
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.hostile.wire import Place

_PAUSE_S = 0.01
# https://docs.kernel.org/filesystems/proc.html, /proc/PID/clear_refs: sets the peak back to what is used now.
_RESET_PEAK = "5"


@dataclass(frozen=True, slots=True)
class Figures:
    """`grown_mb` and `peak_mb` in MB (10^6 bytes), None if the process is not ours. `stall_s`: the longest wait for
    a health request. `connections`: the most descriptors that the process held."""

    peak_mb: float | None
    grown_mb: float | None
    stall_s: float
    connections: int | None


class Watch:
    """`with Watch(place, patience_s) as watch:` asks for its health all the time, in a thread of its own.

    A request that is not answered within `patience_s` counts with that time.
    """

    def __init__(self, place: Place, patience_s: float) -> None:
        self.stall_s = 0.0
        self.place = place
        self._patience_s = patience_s
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._ask_until_ended, daemon=True)
        self._before_mb: float | None = None
        self._connections = 0
        self._asked_at: float | None = None

    def __enter__(self) -> Self:
        if self.place.pid is not None:
            with contextlib.suppress(OSError):
                Path(f"/proc/{self.place.pid}/clear_refs").write_text(_RESET_PEAK, "ascii")
        self._before_mb = self._memory_mb("VmRSS:")
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join(self._patience_s)

    def forget(self) -> None:
        """Measure the stall again from here on."""
        self.stall_s = 0.0

    def so_far(self) -> float:
        """The longest wait up to now, in seconds; a request that still waits counts too."""
        asked_at = self._asked_at
        return max(self.stall_s, time.perf_counter() - asked_at if asked_at is not None else 0.0)

    def grown_mb(self) -> float | None:
        """How much more memory the process has used, at its peak, than when this began."""
        peak = self._memory_mb("VmHWM:")
        return None if peak is None or self._before_mb is None else peak - self._before_mb

    def figures(self) -> Figures:
        return Figures(self._memory_mb("VmHWM:"), self.grown_mb(), self.so_far(), self._connections or None)

    def _ask_until_ended(self) -> None:
        while not self._ended.wait(_PAUSE_S):
            self._asked_at = begun = time.perf_counter()
            with contextlib.suppress(OSError):
                _get_health(self.place, self._patience_s)
            self._asked_at = None
            self.stall_s = max(self.stall_s, time.perf_counter() - begun)
            with contextlib.suppress(OSError):
                if self.place.pid is not None:
                    self._connections = max(self._connections, len(os.listdir(f"/proc/{self.place.pid}/fd")))

    def _memory_mb(self, name: str) -> float | None:
        if self.place.pid is None:
            return None
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{self.place.pid}/status").read_text("ascii").splitlines():
                if line.startswith(name):
                    return int(line.split()[1]) * 1024 / 1e6
        return None


def _get_health(place: Place, patience_s: float) -> None:
    with socket.create_connection((place.host, place.port), patience_s) as connected:
        connected.sendall(
            f"GET {place.health} HTTP/1.1\r\nHost: {place.authority}\r\nConnection: close\r\n\r\n".encode()
        )
        while connected.recv(4_096):
            pass

"""Recent values of the state stores in memory, so that what was just written is read without the disk.

The runtime is the only writer of its file (`lock`), so what it has committed is what there is. An uncommitted value is
never in here.
"""

from collections import OrderedDict
from dataclasses import dataclass

# All values together, and the largest one that is kept.
_MAX_BYTES = 4 * 1024 * 1024
_MAX_VALUE_BYTES = 256 * 1024
# What an entry takes beside its value.
_ENTRY_BYTES = 500

# A store and a key in it.
KeyName = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Found:
    """A value, as JSON text in UTF-8, and the ETag under which it stands until the next write."""

    value: bytes
    etag: str
    expires_at: float | None

    def is_live(self, now: float) -> bool:
        return self.expires_at is None or self.expires_at > now


class StateCache:
    """The most recently used values, by store and key. One for all stores of a database."""

    def __init__(self, max_bytes: int = _MAX_BYTES) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._found: OrderedDict[KeyName, Found] = OrderedDict()

    def get(self, name: KeyName) -> Found | None:
        """The value as committed; None where it is not in here."""
        found = self._found.get(name)
        if found is not None:
            self._found.move_to_end(name)
        return found

    def put(self, name: KeyName, found: Found) -> None:
        """What is on disk now."""
        self.drop(name)
        if len(found.value) > _MAX_VALUE_BYTES:
            return
        self._found[name] = found
        self._bytes += len(found.value) + _ENTRY_BYTES
        while self._bytes > self._max_bytes:
            _, oldest = self._found.popitem(last=False)
            self._bytes -= len(oldest.value) + _ENTRY_BYTES

    def drop(self, name: KeyName) -> None:
        """Let the next read see for itself."""
        found = self._found.pop(name, None)
        if found is not None:
            self._bytes -= len(found.value) + _ENTRY_BYTES

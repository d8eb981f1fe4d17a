"""One process for a data folder: a lock on a file in it, which ends with the process however that ends."""

import fcntl
import os
from pathlib import Path

from everturn.errors import StartError

_LOCK_FILE = "everturn.lock"


class FolderLock:
    """Held from `take` to `release`."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor: int | None = descriptor

    @classmethod
    def take(cls, folder: Path) -> "FolderLock":
        """Make `folder` where it is missing, and lock it.

        Raises StartError where another process has it, or where it cannot be written to.
        """
        try:
            folder.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(folder / _LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StartError(
                f"cannot write to the data folder {str(folder)!r} ({error.strerror}): "
                "make it writable or set EVERTURN_DATA_DIR to another folder"
            ) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            owner = os.read(descriptor, 20).decode("ascii", "replace").strip() or "unknown"
            os.close(descriptor)
            raise StartError(
                f"data folder {str(folder)!r} is in use by process {owner}: "
                "stop it or set EVERTURN_DATA_DIR to another folder"
            ) from error
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
        return cls(descriptor)

    def release(self) -> None:
        """Give the folder up. Harmless when done before."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

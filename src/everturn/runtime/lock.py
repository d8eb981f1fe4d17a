"""One process for a data folder: a lock on a file in it, which ends with the process however that ends."""

import fcntl
import logging
import os
import stat
from pathlib import Path
from typing import IO

from everturn.errors import StartError

log = logging.getLogger(__name__)

_LOCK_FILE = "everturn.lock"
# The database with what SQLite keeps beside it, and the lock. A folder may have other files, and other uses.
_OUR_FILES = "everturn.*"


def lock_folder(folder: Path) -> IO[str]:
    """Make `folder` if it is missing, lock it, and close it to other users of the machine, with our files in it.

    The lock is held until the returned file is closed. What belongs to another user stays as it is, with a warning: the
    rights of a volume are its operator's. Raises StartError if another process has the folder, or if it cannot be
    written to.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(folder / _LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except (FileExistsError, NotADirectoryError) as error:
        raise StartError(f"the data folder {str(folder)!r} is a file: set EVERTURN_DATA_DIR to a folder") from error
    except OSError as error:
        raise StartError(
            f"cannot write to the data folder {str(folder)!r} ({error.strerror}): "
            "make it writable or set EVERTURN_DATA_DIR to another folder"
        ) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        owner = _holder(descriptor)
        os.close(descriptor)
        raise StartError(
            f"data folder {str(folder)!r} is in use by process {owner}: "
            "stop it or set EVERTURN_DATA_DIR to another folder"
        ) from error
    _close_to_others(folder)
    os.ftruncate(descriptor, 0)
    os.write(descriptor, f"{os.getpid()}\n".encode())
    return os.fdopen(descriptor)


def holder_of(folder: Path) -> str | None:
    """The id of the process that has `folder` now, `unknown` if it does not say; None if nobody has it.

    Raises OSError if the lock cannot be looked at.
    """
    try:
        descriptor = os.open(folder / _LOCK_FILE, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _holder(descriptor)
    finally:
        os.close(descriptor)
    return None


def _holder(descriptor: int) -> str:
    return os.read(descriptor, 20).decode("ascii", "replace").strip() or "unknown"


def _close_to_others(folder: Path) -> None:
    for path in (folder, *folder.glob(_OUR_FILES)):
        mode = path.lstat().st_mode
        if mode & 0o077 and not path.is_symlink():
            try:
                path.chmod(stat.S_IMODE(mode) & 0o700)
            except OSError as error:
                log.warning("open_to_others", extra={"path": str(path), "reason": error.strerror})

"""A consistent copy of a database file, also while a runtime writes to it.

SQLite's online backup (https://www.sqlite.org/backup.html) inside one read transaction: the copy is what was committed
when it began, writers go on meanwhile, and no write of theirs makes the copy begin again. The file alone is not enough:
what was committed last is in the write-ahead log beside it.
"""

import contextlib
import os
from collections.abc import Callable
from pathlib import Path

import apsw

from everturn.errors import TerminalError

# Pages between two reports of progress, 4 MiB as a rule.
_PAGES_PER_STEP = 1_000
_BUSY_MS = 5_000

# Called with how many pages are copied, of how many.
Progress = Callable[[int, int], None]


def back_up(database: Path, target: Path, progress: Progress = lambda _copied, _pages: None) -> int:
    """Copy `database` to the new file `target`, which only this user may read; its size in bytes.

    `target` appears when it is whole and on disk: until then the copy has the name `target` with `.part` added. Raises
    TerminalError if `target` or that exists, if either file cannot be used, or if the copy is damaged.
    """
    part = target.with_name(f"{target.name}.part")
    with contextlib.ExitStack() as undo:
        try:
            os.close(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
            undo.callback(_remove, part)
            if os.path.lexists(target):
                raise FileExistsError
            _copy(database, part, progress)
            size = part.stat().st_size
            part.rename(target)
            undo.pop_all()
            _flush_folder(target.parent)
        except FileExistsError:
            there = target if os.path.lexists(target) else part
            raise TerminalError(f"{str(there)!r} is there already: name another file, or move it away") from None
        except OSError as error:
            raise TerminalError(f"cannot write {str(target)!r}: {error.strerror}") from error
        except apsw.Error as error:
            raise TerminalError(f"cannot copy {str(database)!r} to {str(target)!r}: {error}") from error
    return size


def _copy(database: Path, part: Path, progress: Progress) -> None:
    with (
        contextlib.closing(apsw.Connection(str(database), flags=apsw.SQLITE_OPEN_READONLY)) as source,
        contextlib.closing(apsw.Connection(str(part), flags=apsw.SQLITE_OPEN_READWRITE)) as copy,
    ):
        source.set_busy_timeout(_BUSY_MS)
        source.execute("BEGIN; SELECT 1 FROM sqlite_schema LIMIT 1")
        with copy.backup("main", source, "main") as backup:
            while not backup.step(_PAGES_PER_STEP):
                progress(backup.page_count - backup.remaining, backup.page_count)
        if copy.pragma("quick_check") != "ok":
            raise TerminalError(f"the database {str(database)!r} is damaged: no backup was made")


def _remove(part: Path) -> None:
    for path in (part, part.with_name(f"{part.name}-journal"), part.with_name(f"{part.name}-wal")):
        path.unlink(missing_ok=True)


def _flush_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

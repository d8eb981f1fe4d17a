"""`everturn backup`: a copy of a data folder's database, whether a runtime has it or not."""

import sys
import time
from pathlib import Path

from everturn.errors import StartError
from everturn.runtime.database.backup import back_up
from everturn.runtime.database.database import DATABASE_FILE
from everturn.runtime.peers.folder import PeerFolder
from everturn.settings import Settings

# A backup that takes longer says how far it is, again and again.
_REPORT_EVERY_S = 2.0
_MIB = 1024 * 1024


def run_backup(settings: Settings, target: Path, app_id: str | None) -> None:
    """Copy the database of the data folder, or of `app_id`'s own folder in it, to the new file `target`.

    Raises StartError if there is no database, TerminalError if it cannot be copied.
    """
    folder = settings.data_dir if app_id is None else PeerFolder(settings.data_dir / "apps", app_id).own_folder
    database = folder / DATABASE_FILE
    if not database.is_file():
        raise StartError(f"there is no database in {str(folder)!r}: set EVERTURN_DATA_DIR to the folder of the runtime")
    size = back_up(database, target, _Progress())
    print(f"backed up {str(database)!r} to {str(target)!r}, {size / _MIB:,.1f} MiB")


class _Progress:
    """Says on stderr how far it is, if that takes long."""

    def __init__(self) -> None:
        self._said_at = time.monotonic()

    def __call__(self, copied: int, pages: int) -> None:
        if time.monotonic() - self._said_at < _REPORT_EVERY_S:
            return
        self._said_at = time.monotonic()
        print(f"{copied:,} of {pages:,} pages copied", file=sys.stderr, flush=True)

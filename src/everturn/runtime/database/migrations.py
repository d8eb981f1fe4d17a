"""The versions of the file: `PRAGMA user_version` says which one it has, numbered scripts bring it up to the last."""

from collections.abc import Sequence
from importlib.resources import files

import apsw

from everturn.errors import StartError

# Version n is what the n-th script leaves. Add one at the end; never change one that was released.
_SCRIPTS = ("schema.sql",)


def migrations() -> list[str]:
    """The SQL of every version, oldest first."""
    folder = files("everturn.runtime.database")
    return [(folder / script).read_text("utf-8") for script in _SCRIPTS]


def migrate(connection: apsw.Connection, scripts: Sequence[str]) -> None:
    """Run the scripts that the file has not had, each in a transaction with its number.

    A file of a release that wrote no number has version 0: the first script creates only what is missing. Raises
    StartError if the file is newer than the scripts.
    """
    version = int(connection.pragma("user_version"))
    if version > len(scripts):
        raise StartError(
            f"the database has version {version}, this release of Everturn reads up to {len(scripts)}: "
            "start the release that wrote it, or a later one"
        )
    for number, script in enumerate(scripts[version:], start=version + 1):
        with connection:
            connection.execute(script)
            connection.pragma("user_version", number)

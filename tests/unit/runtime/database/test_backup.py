"""A copy of a database that is in use."""

import stat
from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest

from everturn.errors import TerminalError
from everturn.runtime.database.backup import back_up
from everturn.runtime.database.database import connect

ROWS = 3_000


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "everturn.db"


@pytest.fixture
def writer(database: Path) -> Iterator[apsw.Connection]:
    """A runtime's connection, open all the time: what it has written is in the log."""
    connection = connect(database)
    with connection:
        connection.execute("CREATE TABLE facts (text)")
        connection.executemany("INSERT INTO facts VALUES (?)", (("x" * 2_000,) for _ in range(ROWS - 1)))
    connection.execute("INSERT INTO facts VALUES ('last')")  # too little for a checkpoint
    yield connection
    connection.close()


def rows(file: Path) -> int:
    connection = apsw.Connection(str(file))
    try:
        return int(connection.execute("SELECT count(*) FROM facts").get)
    finally:
        connection.close()


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_the_copy_is_what_was_committed_when_it_began(database: Path, writer: apsw.Connection, tmp_path: Path) -> None:
    reports = []

    def write_meanwhile(copied: int, pages: int) -> None:
        assert (copied, pages) not in reports, "it began again"
        reports.append((copied, pages))
        writer.execute("INSERT INTO facts VALUES ('later')")

    size = back_up(database, tmp_path / "copy.db", write_meanwhile)

    assert rows(tmp_path / "copy.db") == ROWS
    assert size == (tmp_path / "copy.db").stat().st_size
    assert rows(database) == ROWS + len(reports) > ROWS


def test_what_a_killed_process_left_in_its_log_is_in_the_copy(
    database: Path, writer: apsw.Connection, tmp_path: Path
) -> None:
    killed = tmp_path / "killed"
    killed.mkdir()
    for path in tmp_path.glob("everturn.db*"):
        (killed / path.name).write_bytes(path.read_bytes())

    back_up(killed / database.name, tmp_path / "copy.db")

    assert rows(tmp_path / "copy.db") == ROWS


@pytest.mark.usefixtures("writer")
def test_only_the_user_may_read_the_copy_and_nothing_else_is_left(database: Path, tmp_path: Path) -> None:
    folder = tmp_path / "backups"
    folder.mkdir()

    back_up(database, folder / "copy.db")

    assert stat.S_IMODE((folder / "copy.db").stat().st_mode) == 0o600
    assert names(folder) == {"copy.db"}


@pytest.mark.usefixtures("writer")
@pytest.mark.parametrize("there", ["copy.db", "copy.db.part"])
def test_a_file_that_exists_is_left_alone(there: str, database: Path, tmp_path: Path) -> None:
    folder = tmp_path / "backups"
    folder.mkdir()
    (folder / there).write_text("precious")

    with pytest.raises(TerminalError, match=f"{there}' is there already"):
        back_up(database, folder / "copy.db")

    assert names(folder) == {there}
    assert (folder / there).read_text() == "precious"


@pytest.mark.usefixtures("writer")
def test_a_backup_that_is_broken_off_leaves_nothing(database: Path, tmp_path: Path) -> None:
    folder = tmp_path / "backups"
    folder.mkdir()

    def interrupted(_copied: int, _pages: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        back_up(database, folder / "copy.db", interrupted)

    assert names(folder) == set()


def test_a_damaged_database_is_not_taken_for_a_backup(database: Path, writer: apsw.Connection, tmp_path: Path) -> None:
    writer.close()
    with database.open("r+b") as file:
        file.seek(4_096 * 5)
        file.write(b"\xff" * 4_096 * 5)

    with pytest.raises(TerminalError, match="damaged"):
        back_up(database, tmp_path / "copy.db")

    assert not list(tmp_path.glob("copy.db*"))


@pytest.mark.usefixtures("writer")
def test_a_folder_that_is_not_there_is_named(database: Path, tmp_path: Path) -> None:
    with pytest.raises(TerminalError, match="nowhere"):
        back_up(database, tmp_path / "nowhere" / "copy.db")


def test_a_file_that_is_no_database_is_named(database: Path, tmp_path: Path) -> None:
    database.write_text("not a database, and longer than the hundred bytes of a header of one" * 20)

    with pytest.raises(TerminalError, match=r"everturn\.db"):
        back_up(database, tmp_path / "copy.db")

    assert not list(tmp_path.glob("copy.db*"))

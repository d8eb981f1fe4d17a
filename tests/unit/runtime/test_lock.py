"""One process for a data folder."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from everturn.errors import StartError
from everturn.runtime.lock import lock_folder


def test_a_folder_in_use_is_refused_and_its_process_named(tmp_path: Path) -> None:
    held = lock_folder(tmp_path)

    with pytest.raises(StartError) as raised:
        lock_folder(tmp_path)

    held.close()
    assert f"is in use by process {os.getpid()}: stop it or set EVERTURN_DATA_DIR" in raised.value.message


def test_a_released_folder_can_be_taken_again(tmp_path: Path) -> None:
    lock_folder(tmp_path).close()

    lock_folder(tmp_path).close()


def test_the_lock_ends_with_its_process(tmp_path: Path) -> None:
    code = (
        "import os, sys, pathlib; from everturn.runtime.lock import lock_folder; "
        "lock = lock_folder(pathlib.Path(sys.argv[1])); os.kill(os.getpid(), 9)"
    )

    killed = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)

    assert killed.returncode == -9
    lock_folder(tmp_path).close()


def test_a_missing_folder_is_made(tmp_path: Path) -> None:
    lock_folder(tmp_path / "a" / "b").close()

    assert (tmp_path / "a" / "b").is_dir()


def test_a_folder_that_cannot_be_is_refused_in_plain_words(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")

    with pytest.raises(StartError, match=r"the data folder .*file' is a file: set EVERTURN_DATA_DIR to a folder"):
        lock_folder(file)


@pytest.mark.skipif(os.getuid() == 0, reason="root may write anywhere")
def test_a_folder_without_write_permission_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)

    with pytest.raises(StartError, match="cannot write to the data folder"):
        lock_folder(tmp_path)

    tmp_path.chmod(0o700)


def test_our_files_alone_are_closed_to_others_and_only_by_who_has_the_folder(tmp_path: Path) -> None:
    ours, other = tmp_path / "everturn.db-wal", tmp_path / "notes.txt"
    for file in (ours, other):
        file.touch()
        file.chmod(0o644)
    tmp_path.chmod(0o755)

    held = lock_folder(tmp_path)
    modes = [path.stat().st_mode & 0o777 for path in (tmp_path, ours, other)]
    tmp_path.chmod(0o755)
    with pytest.raises(StartError):
        lock_folder(tmp_path)
    held.close()

    assert modes == [0o700, 0o600, 0o644]
    assert tmp_path.stat().st_mode & 0o777 == 0o755


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a folder to another user")
def test_a_folder_of_another_owner_that_may_be_written_to_is_used_as_it_is(tmp_path: Path) -> None:
    os.chown(tmp_path, 4711, 4711)
    tmp_path.chmod(0o777)
    code = (
        "import os, sys, pathlib; from everturn.runtime.lock import lock_folder; os.chdir(sys.argv[1]); "
        "os.setuid(4712); lock_folder(pathlib.Path()).close()"
    )

    taken = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False, capture_output=True)

    assert taken.returncode == 0, taken.stderr

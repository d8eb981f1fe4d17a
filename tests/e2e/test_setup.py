"""The set-up behind `make`: what cannot work is told in one sentence that says what to do. No network is needed."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
TOOLS = ("sh", "echo", "cat", "cksum", "tr", "dirname", "mkdir", "make", "rm")


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """What the set-up needs of the project, and a folder of programs without any Python."""
    folder = tmp_path / "clone"
    (folder / "tools").mkdir(parents=True)
    for name in ("Makefile", "pyproject.toml", "uv.lock", "tools/setup.sh"):
        shutil.copy(ROOT / name, folder / name)
    programs = tmp_path / "bin"
    programs.mkdir()
    for tool in TOOLS:
        found = shutil.which(tool)
        assert found is not None
        (programs / tool).symlink_to(found)
    return folder


def program(clone: Path, name: str, script: str) -> None:
    """Put a program into the folder of programs."""
    path = clone.parent / "bin" / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def make(clone: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        ["make", *arguments],
        cwd=clone,
        env={"PATH": str(clone.parent / "bin"), "HOME": str(clone.parent), "PIP_NO_INDEX": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


def sentence(done: "subprocess.CompletedProcess[str]") -> str:
    """The last thing that the set-up said, and that it failed."""
    assert done.returncode != 0
    return [line for line in done.stderr.splitlines() if line.startswith("set-up: ")][-1]


def test_make_alone_prints_what_there_is(clone: Path) -> None:
    done = make(clone)

    assert done.returncode == 0
    for command in ("make up", "make test", "make check", "make clean"):
        assert command in done.stdout


def test_a_machine_without_python_is_told_so(clone: Path) -> None:
    assert "needs Python 3.11 or newer" in sentence(make(clone, "up"))


def test_a_python_that_is_too_old_is_named(clone: Path) -> None:
    program(clone, "python3", 'if [ "$1" = -V ]; then echo Python 3.8.1; else exit 1; fi')

    assert "found Python 3.8.1" in sentence(make(clone, "up"))


def test_a_python_that_was_asked_for_and_is_no_python_is_named(clone: Path) -> None:
    assert "PYTHON=nonsense" in sentence(make(clone, "up", "PYTHON=nonsense"))


def test_a_python_without_venv_says_what_to_install(clone: Path) -> None:
    program(clone, "python3", f'case "$*" in *ensurepip*) exit 1;; *) exec {sys.executable} "$@";; esac')

    assert "python3-venv" in sentence(make(clone, "up"))


def test_an_index_that_cannot_be_reached_says_what_to_check(clone: Path) -> None:
    program(clone, "python3", f'exec {sys.executable} "$@"')

    told = sentence(make(clone, "up"))

    assert "check the network" in told
    assert (clone / ".venv" / "setup.log").read_text()


def test_a_benchmark_without_its_load_generator_says_what_to_install(clone: Path) -> None:
    (clone / "tools" / "setup.sh").write_text("exit 0\n")

    for target in ("bench", "bench-dapr"):
        done = make(clone, target)

        assert done.returncode != 0
        assert "apt install wrk" in done.stderr

"""The project's own checks find what they are for."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent


def check(tool: str, *arguments: str, folder: Path = ROOT) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, str(ROOT / "tools" / tool), *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


def function_of(lines: int, docstring: str = "") -> str:
    body = [f'    """{docstring}"""'] if docstring else []
    body += ["    x = 1"] * (lines - 1)
    return "\n".join(["def long() -> None:", *body]) + "\n"


@pytest.mark.parametrize(
    ("source", "found"),
    [
        (function_of(41), "long has 41 lines"),
        (f"async {function_of(41)}", "long has 41 lines"),
        (f"class A:\n    {function_of(41).replace(chr(10), chr(10) + '    ')}\n", "long has 41 lines"),
        ("x = 1\n" * 501, "501 lines"),
    ],
)
def test_what_is_too_long_is_named(tmp_path: Path, source: str, found: str) -> None:
    (tmp_path / "room.py").write_text(source)

    done = check("check_sizes.py", str(tmp_path))

    assert done.returncode == 1
    assert found in done.stdout


@pytest.mark.parametrize("source", [function_of(40), function_of(40, "one\n\n    two"), "x = 1\n" * 500])
def test_what_is_just_short_enough_passes(tmp_path: Path, source: str) -> None:
    (tmp_path / "room.py").write_text(source)

    assert check("check_sizes.py", str(tmp_path)).returncode == 0


def repository(folder: Path, line: str) -> None:
    (folder / "page.md").write_text(f"fine\n{line}\n")
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    subprocess.run(["git", "add", "page.md"], cwd=folder, check=True)


@pytest.mark.parametrize("folder", ["root", "home/sam", "Users/sam"])
def test_a_path_of_one_machine_is_found(tmp_path: Path, folder: str) -> None:
    repository(tmp_path, f"see /{folder}/everturn/notes")

    done = check("check_paths.py", folder=tmp_path)

    assert done.returncode == 1
    assert "page.md:2" in done.stdout


@pytest.mark.parametrize("line", ["https://example.org/home/page", "src/everturn/workflow.py", "/v1.0/state"])
def test_what_only_looks_like_one_passes(tmp_path: Path, line: str) -> None:
    repository(tmp_path, line)

    assert check("check_paths.py", folder=tmp_path).returncode == 0


def test_a_room_that_imports_its_neighbour_is_found(tmp_path: Path) -> None:
    package = tmp_path / "everturn"
    shutil.copytree(ROOT / "src" / "everturn", package)
    (package / "chat" / "neighbour.py").write_text("import everturn.memory\n")

    done = subprocess.run(
        [str(Path(sys.executable).parent / "lint-imports"), "--config", str(ROOT / "pyproject.toml"), "--no-cache"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode != 0
    assert "everturn.chat is not allowed to import everturn.memory" in done.stdout + done.stderr

"""Packages of npm, installed once from their lock file, for the tests that need them."""

import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import NoReturn

import pytest

PROGRAM = Path(__file__).parent / "javascript" / "app.js"
_FILES = ("package.json", "package-lock.json")


def node_modules(source: Path = PROGRAM.parent) -> Path:
    """The folder with what the lock file in `source` names. Without Node, npm or packages: a skip, in CI a failure."""
    digest = hashlib.sha256(b"".join((source / name).read_bytes() for name in _FILES)).hexdigest()[:16]
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(cache) / "everturn" / source.name / digest
    if shutil.which("node") is None:
        _do_without("there is no Node")
    if not folder.is_dir():
        _install(source, folder)
    return folder / "node_modules"


def _install(source: Path, folder: Path) -> None:
    if shutil.which("npm") is None:
        _do_without("there is no npm")
    folder.parent.mkdir(parents=True, exist_ok=True)
    half_done = Path(tempfile.mkdtemp(dir=folder.parent))
    try:
        for name in _FILES:
            shutil.copy(source / name, half_done)
        command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
        if subprocess.run(command, cwd=half_done, check=False, stdin=subprocess.DEVNULL).returncode != 0:
            _do_without("npm could not install it")
        half_done.rename(folder)  # whole or not at all
    finally:
        shutil.rmtree(half_done, ignore_errors=True)


def _do_without(why: str) -> NoReturn:
    reason = f"what runs on Node cannot be tried: {why}"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)

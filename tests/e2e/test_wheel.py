"""What is built holds all that runs need."""

import asyncio
import os
import subprocess
import sys
import zipfile
from pathlib import Path

from everturn.chat.page import page_for
from tests.e2e.conftest import SOURCE, Machine

UV = Path(sys.executable).with_name("uv")


async def test_what_uv_tool_installs_runs_from_any_folder(tmp_path: Path, machine: Machine) -> None:
    folders = {"UV_TOOL_DIR": str(tmp_path / "tools"), "UV_TOOL_BIN_DIR": str(tmp_path / "bin")}
    command = [str(UV), "tool", "install", "--quiet", "--python", sys.executable, str(SOURCE.parent)]
    installing = await asyncio.create_subprocess_exec(*command, env={**os.environ, **folders})
    assert await installing.wait() == 0
    machine.installed = tmp_path / "bin" / "everturn"

    await machine.up()
    chat = await machine.run("chat", "--user", "junaid", "-m", "My name is Junaid.")

    assert await chat.exit_code() == 0
    assert "Junaid" in chat.out.all[-1]


def test_the_wheel_has_the_files_of_the_page(tmp_path: Path) -> None:
    command = [str(UV), "build", "--quiet", "--wheel", "--out-dir", str(tmp_path), str(SOURCE.parent)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)

    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as built:
        assert {f"everturn/chat{path}" for path in page_for("none").paths} <= set(built.namelist())

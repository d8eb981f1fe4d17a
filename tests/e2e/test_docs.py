"""What the README, the tutorial and the how-to say is done here, command by command, and must come true."""

import asyncio
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.conftest import SOURCE, Client, Everturn, Machine

ROOT = SOURCE.parent
_BLOCK = re.compile(r"^```sh( run)?\n(.*?)^```\n(?:\n<!-- shows: (.*?) -->)?", re.MULTILINE | re.DOTALL)
_EDIT = re.compile(r"^<!-- edit: (.*?) -->\n```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True, slots=True)
class Command:
    """A block of shell in a page; `runs` where it is meant to be run as it is; `shows` is what its output must hold."""

    text: str
    runs: bool
    shows: str


def commands(page: str) -> list[Command]:
    text = (ROOT / page).read_text("utf-8")
    return [Command(command, bool(run), shows) for run, command, shows in _BLOCK.findall(text)]


async def output_of(command: Command, machine: Machine) -> str:
    text = command.text.replace("localhost:8010", f"127.0.0.1:{machine.chat_port}")
    text = text.replace("localhost:8001", f"127.0.0.1:{machine.memory_port}")
    process = await asyncio.create_subprocess_exec(
        "sh",
        "-ec",
        text,
        cwd=machine.folder,
        env=machine.environment(),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert process.returncode == 0, f"{text}\n{err.decode()}"
    return out.decode()


async def follow(page: str, machine: Machine) -> None:
    """Do what `page` says. `make up` is `everturn up` in the environment that runs the tests."""
    running: Everturn | None = None
    for command in commands(page):
        settings, up, options = command.text.partition("make up")
        if command.runs:
            # Twice at most: the memory service stores a turn a moment after its reply.
            shown = await output_of(command, machine)
            while command.shows not in shown and "/conversations/" in command.text:
                shown = await output_of(command, machine)
            assert command.shows in shown, f"{command.text}\n{shown}"
        elif up:
            arguments = ["--faults"] if "--faults" in options else []
            pairs = dict(pair.split("=") for pair in settings.split())
            running = await machine.up(*arguments, **pairs)
        elif command.text.startswith("kill -9"):
            assert running is not None
            await running.kill()


async def test_the_readme_comes_true(machine: Machine) -> None:
    assert any(command.runs for command in commands("README.md"))

    await follow("README.md", machine)


async def test_the_tutorial_comes_true(machine: Machine) -> None:
    assert sum(command.runs for command in commands("docs/tutorial.md")) >= 7

    async with asyncio.timeout(120):
        await follow("docs/tutorial.md", machine)

    assert "  resumed 1 unfinished turns" in machine.started[-1].out.all


async def test_adding_a_step_is_one_function_and_one_line(machine: Machine, client: Client) -> None:
    machine.source = machine.folder / "src"
    shutil.copytree(SOURCE, machine.source, ignore=shutil.ignore_patterns("__pycache__"))
    edits = _EDIT.findall((ROOT / "docs/how-to/add-a-step.md").read_text("utf-8"))
    assert len(edits) == 2
    for where, code in edits:
        edit(machine.folder, where, code)

    running = await machine.up()
    reply = (await client.say("Hi there")).json()

    assert await running.event("turn_logged", turn_id=reply["turn_id"])
    steps = {step["name"]: step["status"] for step in (await client.turn(reply["turn_id"]))["steps"]}
    assert steps["log_turn"] == "completed"


def edit(root: Path, where: str, code: str) -> None:
    if where.startswith("append to "):
        path = root / where.removeprefix("append to ")
        path.write_text(f"{path.read_text('utf-8')}\n\n{code}", "utf-8")
        return
    found = re.fullmatch(r"in (\S+) after `(.*)`", where)
    assert found is not None, where
    path, anchor = root / found[1], f"{found[2]}\n"
    source = path.read_text("utf-8")
    assert source.count(anchor) == 1, f"{where}: not there, or not once"
    path.write_text(source.replace(anchor, anchor + code), "utf-8")

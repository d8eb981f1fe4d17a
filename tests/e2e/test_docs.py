"""What the README, the tutorial and the how-to say is done here, command by command, and must come true."""

import asyncio
import contextlib
import re
import shutil
import signal
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from everturn.models.texts import unfence
from everturn.testing.model_answers import completion, tool_calls
from everturn.testing.model_endpoint import ModelEndpoint
from tests.e2e.conftest import SOURCE, Client, Everturn, Machine, free_ports
from tests.e2e.terminal import Terminal, running_in_terminal

ROOT = SOURCE.parent
_BLOCK = re.compile(
    r"^```sh(?: (run|beside))?\n(.*?)^```\n(?:\n<!-- shows: (.*?) -->)?(?:\n<!-- at last: (.*?) -->)?",
    re.MULTILINE | re.DOTALL,
)
_FILE = re.compile(r"^<!-- file: (.*?) -->\n```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
_EDIT = re.compile(r"^<!-- edit: (.*?) -->\n```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True, slots=True)
class Command:
    """A block of shell in a page; `how` is `run` if it is run as it is, and `beside` if the page goes on meanwhile.

    `shows` is what its output must hold, before the page goes on; `at_last` what it must hold when the page is done.
    """

    how: str
    text: str
    shows: str
    at_last: str


def commands(page: str) -> list[Command]:
    text = (ROOT / page).read_text("utf-8")
    return [Command(*block) for block in _BLOCK.findall(text)]


def as_typed(command: Command, machine: Machine) -> str:
    text = command.text.replace(".venv/bin/", "").replace("localhost:8010", f"127.0.0.1:{machine.chat_port}")
    return text.replace("localhost:8001", f"127.0.0.1:{machine.memory_port}")


async def output_of(command: Command, machine: Machine) -> str:
    text = as_typed(command, machine)
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
    async with contextlib.AsyncExitStack() as stack:
        for terminal, at_last in await followed(page, machine, stack):
            assert await terminal.exit_code() == 0, terminal.text
            assert at_last in terminal.sentence


async def followed(page: str, machine: Machine, stack: contextlib.AsyncExitStack) -> list[tuple[Terminal, str]]:
    """What runs beside, once the rest is done, and what each must show at last."""
    running: Everturn | None = None
    beside = []
    for command in commands(page):
        settings, up, options = command.text.partition("make up")
        if command.how == "beside":
            shell = running_in_terminal(machine, "sh", "-ec", as_typed(command, machine))
            terminal = await stack.enter_async_context(shell)
            await terminal.shows(command.shows)
            beside.append((terminal, command.at_last))
        elif command.how == "run":
            # Twice at most: the memory service stores a turn a moment after its reply.
            shown = await output_of(command, machine)
            while command.shows not in shown and "/conversations/" in command.text:
                shown = await output_of(command, machine)
            assert command.shows in shown, f"{command.text}\n{shown}"
        elif up:
            arguments = [option for option in ("--faults", "--slow-demo") if option in options]
            if running is not None and running.process.returncode is None:
                running.process.send_signal(signal.SIGINT)
                await running.exit_code()
            pairs = dict(pair.split("=") for pair in settings.split())
            running = await machine.up(*arguments, **pairs)
        elif command.text.startswith("kill "):
            assert running is not None
            await (running.kill() if "-9" in command.text else running.stop())
    return beside


async def test_the_readme_comes_true(machine: Machine) -> None:
    assert [command.how for command in commands("README.md")].count("beside") == 1

    await follow("README.md", machine)


async def test_the_tutorial_comes_true(machine: Machine) -> None:
    hows = [command.how for command in commands("docs/tutorial.md")]
    assert (hows.count("run") >= 7, hows.count("beside")) == (True, 1)

    async with asyncio.timeout(120):
        await follow("docs/tutorial.md", machine)

    assert "  resumed 1 unfinished turn" in machine.started[-1].out.all


async def test_adding_a_tool_is_one_file_and_one_setting(machine: Machine) -> None:
    page = "docs/how-to/add-a-tool.md"
    write_files(page, machine)
    asked = tool_calls(("send_mail", '{"to": "bob", "text": "I am late"}'))
    async with ModelEndpoint(completion("Done.")) as endpoint:
        endpoint.script_for("mail bob", asked)
        machine.settings |= {"EVERTURN_MODEL_BASE_URL": endpoint.base_url, "EVERTURN_MODEL_NAME": "scripted"}

        await follow(page, machine)


async def test_a_turn_is_replayed_as_the_page_says(machine: Machine) -> None:
    page = "docs/how-to/replay-a-turn.md"
    assert [command.how for command in commands(page)].count("run") == 5
    for name, code in _FILE.findall((ROOT / page).read_text("utf-8")):
        (machine.folder / name).write_text(code, "utf-8")
    asked = tool_calls(("send_mail", '{"to": "bob", "text": "I am late"}'))
    async with ModelEndpoint(completion("Done.")) as endpoint:
        endpoint.script_for("mail bob", asked)
        machine.settings |= {"EVERTURN_MODEL_BASE_URL": endpoint.base_url, "EVERTURN_MODEL_NAME": "scripted"}

        await follow(page, machine)

        # A summary asks without tools.
        assert len([request for request in endpoint.requests if request.body.get("tools")]) == 2


async def test_a_prompt_of_ones_own_is_what_the_model_reads(machine: Machine, client: Client) -> None:
    page = "docs/how-to/change-the-prompt.md"
    write_files(page, machine)
    async with ModelEndpoint(completion("Rye or wheat?")) as endpoint:
        machine.settings |= {"EVERTURN_MODEL_BASE_URL": endpoint.base_url, "EVERTURN_MODEL_NAME": "scripted"}

        await follow(page, machine)

        system = endpoint.requests[0].body["messages"][0]["content"]
    assert system.startswith(
        "You are the assistant of a bakery. Speak only of bread.\n\nYou are the assistant of a chat"
    )
    assert unfence(system)["name"] == "ann"


async def test_a_workflow_of_ones_own_goes_on_after_a_crash(machine: Machine, client: Client) -> None:
    page = "docs/how-to/write-a-workflow.md"
    write_files(page, machine)
    (port,) = free_ports(1)
    start, look, event = (replace(each, text=each.text.replace("3500", str(port))) for each in commands(page))
    options, _, program = start.text.strip().partition(" -- ")
    assert program == ".venv/bin/python order.py"
    run = [*options.split()[1:], "--", sys.executable, "order.py"]

    first = await machine.run(*run)
    await first.out.first(lambda line: line == "paying for a lamp")
    while look.shows not in await output_of(look, machine):
        pass
    await first.kill()
    second = await machine.run(*run)
    await second.out.first(lambda line: line.startswith("Workflow engine started"))
    await output_of(event, machine)

    assert await second.exit_code() == 0, second.err.all
    said = [line for line in second.out.all if line.startswith(("paying", "sending", "COMPLETED"))]
    assert said == ["sending a lamp, paid", 'COMPLETED: "a lamp, paid, sent"']


def write_files(page: str, machine: Machine) -> None:
    """The files that the page tells its reader to write."""
    for name, code in _FILE.findall((ROOT / page).read_text("utf-8")):
        (machine.folder / name).write_text(code, "utf-8")


async def test_what_was_backed_up_is_there_when_it_is_restored(machine: Machine) -> None:
    assert [command.how for command in commands("docs/how-to/back-up.md")].count("run") == 4

    async with asyncio.timeout(120):
        await follow("docs/how-to/back-up.md", machine)

    assert len(machine.started) == 2


async def test_an_upgrade_keeps_what_was_said(machine: Machine) -> None:
    async with asyncio.timeout(120):
        await follow("docs/how-to/upgrade.md", machine)

    assert len(machine.started) == 2


async def test_talking_in_the_terminal_comes_true(machine: Machine) -> None:
    await follow("docs/how-to/talk-in-the-terminal.md", machine)


async def test_watching_shows_what_the_page_says(machine: Machine) -> None:
    await follow("docs/how-to/watch.md", machine)


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
    found = re.fullmatch(r"in (\S+) (before|after) `(.*)`", where)
    assert found is not None, where
    path, anchor = root / found[1], f"{found[3]}\n"
    source = path.read_text("utf-8")
    assert source.count(anchor) == 1, f"{where}: not there, or not once"
    both = f"{code}\n\n{anchor}" if found[2] == "before" else anchor + code
    path.write_text(source.replace(anchor, both), "utf-8")


def pages() -> list[Path]:
    return [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]


def anchors(page: Path) -> set[str]:
    """The headings of a page, as GitHub names them in addresses."""
    headings = re.findall(r"^#+ (.*)$", page.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_of_a_page_leads_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\((?!https?:)([^)]+)\)", page.read_text("utf-8")):
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page

        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_name_the_program_as_it_is_found_after_make(page: Path) -> None:
    shell = re.findall(r"^```sh.*?\n(.*?)^```", page.read_text("utf-8"), re.MULTILINE | re.DOTALL)

    assert [line for block in shell for line in block.splitlines() if re.search(r"(?<![\w/])everturn \w", line)] == []

"""The command line: help that suffices, one line a refusal, exit codes that scripts can use."""

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from everturn import __version__
from everturn.cli.main import main


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("arguments", [[], ["--help"]])
def test_help_names_every_command_and_the_first_settings(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 0

    shown = capsys.readouterr().out
    verbs = ("up", "serve", "runtime", "chat", "turns", "--version")
    for word in (*verbs, "EVERTURN_DATA_DIR", "GEMINI_API_KEY", "docs/reference/settings.md"):
        assert word in shown


@pytest.mark.parametrize(
    ("port", "says"), [("9010", "start everything on ports 9010 and 8001"), ("eighty", "start everything on two ports")]
)
def test_help_names_the_ports_of_the_settings_and_is_there_with_wrong_ones(
    port: str, says: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("EVERTURN_CHAT_PORT", port)

    assert main(["--help"]) == 0

    assert says in capsys.readouterr().out


def test_turns_alone_lists_what_it_can_do(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["turns"]) == 0

    shown = capsys.readouterr().out
    for verb in ("list", "show", "rerun", "replay"):
        assert f"\n  {verb} " in shown


def test_a_url_without_its_scheme_is_said_to_have_none(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["turns", "list", "--user", "junaid", "--url", "localhost:8010"]) == 1

    refusal = capsys.readouterr().err
    assert "--url: " in refusal
    assert "does not begin with http:// or https://" in refusal


def test_no_help_is_cut_off(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["--help"], ["turns", "--help"], ["turns", "list", "--help"], ["turns", "replay", "--help"]):
        assert main(arguments) == 0

    shown = capsys.readouterr().out
    assert "..." not in shown.replace("COMMAND [ARGS]...", "")
    assert "--url URL " in shown


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_program_that_is_ended_while_it_loads_says_nothing(tmp_path: Path, number: signal.Signals) -> None:
    # What is imported from the folder before the real one: it ends the program at that moment.
    (tmp_path / "typer.py").write_text(f"import os\nos.kill(os.getpid(), {int(number)})\n", "utf-8")

    ended = subprocess.run([sys.executable, "-m", "everturn.cli", "up"], capture_output=True, check=False)

    assert (ended.returncode, ended.stdout, ended.stderr) == (0, b"", b"")


def test_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == __version__


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["fly"], "fly"),
        (["up", "--nonsense"], "--nonsense"),
        (["serve"], "service"),
        (["serve", "broker"], "broker"),
        (["chat", "-m", "hello"], "--user"),
        (["turns", "list"], "--user"),
        (["turns", "show"], "TURN_ID"),
        (["up", "--", "python"], "everturn runtime"),
        (["chat", "--", "python"], "everturn runtime"),
        (["runtime", "python"], "python"),
        (["runtime", "--log-level", "loud"], "loud"),
        *((["runtime", f"--app-id={app_id}"], "no app id") for app_id in ("", " ", ".", "..")),
        *(
            (["runtime", "--app-id=mine", f"--app-port={port}"], "no port")
            for port in ("0", "65536", "http", "-1", "٣")
        ),
        (["runtime", "--app-port", "5000"], "--app-id"),
        (["runtime", "--", "python"], "--app-id"),
        (["runtime", "--dapr-http-port", "65535"], "--dapr-http-port"),
        (["runtime", "--dapr-grpc-port", "65535"], "--dapr-grpc-port"),
        (["runtime", "--app-id", "mine", "--config", "nowhere.yaml"], "nowhere.yaml"),
    ],
)
def test_a_command_line_that_makes_no_sense_exits_with_2_and_one_line(
    arguments: list[str], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2

    refusal = capsys.readouterr().err
    assert refusal.startswith("everturn: ")
    assert named in refusal
    assert refusal.count("\n") == 1


@pytest.fixture
def free_ports(unused_tcp_port_factory: Callable[[], int], monkeypatch: pytest.MonkeyPatch) -> None:
    for service in ("CHAT", "MEMORY"):
        monkeypatch.setenv(f"EVERTURN_{service}_PORT", str(unused_tcp_port_factory()))


@pytest.mark.usefixtures("free_ports")
@pytest.mark.parametrize("verb", [["up"], ["runtime", "--app-id", "mine"]])
def test_component_files_that_cannot_be_read_exit_with_1_and_one_line(
    verb: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*verb, "--resources-path", "nowhere"]) == 1

    refusal = capsys.readouterr().err
    assert "nowhere" in refusal
    assert refusal.count("\n") == 1


@pytest.mark.parametrize("verb", [["up"], ["runtime"], ["runtime", "--app-id", "mine"]])
def test_a_start_warns_of_a_name_that_is_no_setting(
    verb: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("EVERTURN_MODLE", "m")

    assert main([*verb, "--resources-path", "nowhere"]) == 1

    assert "EVERTURN_MODLE is no setting: did you mean EVERTURN_MODEL_NAME?" in capsys.readouterr().err


@pytest.mark.usefixtures("free_ports")
def test_up_reads_the_components_of_its_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "components").mkdir()
    (tmp_path / "components" / "statestore.yaml").write_text("kind: Component\nmetadata: {}\n", "utf-8")

    assert main(["up"]) == 1

    assert "statestore.yaml" in capsys.readouterr().err


@pytest.mark.parametrize("command", [["up"], ["chat", "--user", "u", "-m", "hi"], ["turns", "show", "x"]])
def test_a_wrong_setting_exits_with_2_and_one_line(
    command: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("EVERTURN_CHAT_PORT", "eighty")

    assert main(command) == 2

    refusal = capsys.readouterr().err
    assert refusal.startswith("everturn: EVERTURN_CHAT_PORT")
    assert refusal.count("\n") == 1


@pytest.mark.parametrize("command", [["chat", "--user", "u", "-m", "hi"], ["turns", "show", "x"]])
def test_a_service_that_is_not_there_exits_with_1_and_says_how_to_start_it(
    command: list[str], unused_tcp_port: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command, "--url", f"http://127.0.0.1:{unused_tcp_port}"]) == 1

    refusal = capsys.readouterr().err
    assert "everturn up" in refusal
    assert refusal.count("\n") == 1


@pytest.mark.parametrize("url", ["ftp://127.0.0.1", "nonsense", "http://[::1"])
def test_an_address_that_is_no_url_exits_with_1(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["turns", "show", "x", "--url", url]) == 1

    assert "--url" in capsys.readouterr().err

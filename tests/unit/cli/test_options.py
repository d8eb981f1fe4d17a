"""What the command line of the separate processes means, and what it refuses."""

from pathlib import Path

import pytest

from everturn.cli.main import main
from everturn.cli.options import parse_command_line, runtime_command
from everturn.cli.runtime import RuntimeCommand


def command_of(*arguments: str) -> RuntimeCommand:
    return runtime_command(RuntimeCommand, *parse_command_line(["runtime", *arguments]))


def test_the_flags_of_dapr_run_are_understood() -> None:
    ports = ["--app-port", "5000", "--dapr-http-port", "3600", "--dapr-grpc-port", "50600"]
    rest = ["--app-protocol", "grpc", "--resources-path", "parts", "--config", "c.yaml", "--log-level", "debug"]

    command = command_of("--app-id", "mine", *ports, *rest, "--", "python", "app.py", "--app-port", "7")

    assert command == RuntimeCommand(
        app_id="mine",
        app_port=5000,
        app_protocol="grpc",
        http_port=3600,
        grpc_port=50600,
        resources_path=Path("parts"),
        configuration=Path("c.yaml"),
        log_level="debug",
        command=("python", "app.py", "--app-port", "7"),
    )


def test_without_flags_it_is_the_runtime_of_both_services() -> None:
    assert command_of() == RuntimeCommand()


@pytest.mark.parametrize("port", ["0", "65536", "http", "-1", "٣"])
def test_a_port_that_is_none_is_refused(port: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["runtime", "--app-id", "mine", f"--app-port={port}"])

    assert ended.value.code == 2
    assert "is no port" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["up", "--", "python"], ["chat", "--", "python"]])
def test_only_the_runtime_takes_a_command(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)

    assert ended.value.code == 2
    assert "everturn runtime" in capsys.readouterr().err


def test_who_wants_to_talk_says_who_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["chat", "-m", "hello"])

    assert ended.value.code == 2
    assert "--user" in capsys.readouterr().err


@pytest.mark.parametrize("app_id", ["", " ", ".", ".."])
def test_an_app_id_that_names_no_folder_of_its_own_is_refused(app_id: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse_command_line(["runtime", f"--app-id={app_id}"])

    assert ended.value.code == 2
    assert "no app id" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--app-port", "5000"], "--app-id"),
        (["--", "python"], "--app-id"),
        (["--dapr-http-port", "65535"], "--dapr-http-port"),
        (["--dapr-grpc-port", "65535"], "--dapr-grpc-port"),
        (["--app-id", "mine", "--config", "nowhere.yaml"], "nowhere.yaml"),
        (["--app-id", "mine", "--resources-path", "nowhere"], "nowhere"),
    ],
)
def test_a_runtime_that_makes_no_sense_is_refused_in_one_line(
    arguments: list[str],
    named: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)

    assert main(["runtime", *arguments]) in (1, 2)

    refusal = capsys.readouterr().err
    assert named in refusal
    assert refusal.count("\n") == 1

"""The command line: help that suffices, one line a refusal, exit codes that scripts can use."""

from pathlib import Path

import pytest

from everturn import __version__
from everturn.cli.main import main


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_help_names_every_command_and_the_first_settings(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--help"])

    shown = capsys.readouterr().out
    assert ended.value.code == 0
    for word in (
        "up",
        "runtime",
        "chat",
        "memory",
        "turns",
        "version",
        "EVERTURN_DATA_DIR",
        "GEMINI_API_KEY",
        "docs/reference/settings.md",
    ):
        assert word in shown


def test_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["version"]) == 0
    assert capsys.readouterr().out.strip() == __version__


def test_an_unknown_command_exits_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["fly"])

    assert ended.value.code == 2
    assert "fly" in capsys.readouterr().err


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

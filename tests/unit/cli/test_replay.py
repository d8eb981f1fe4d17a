"""`everturn turns replay` of a file: what it prints and its exit code."""

import json
from pathlib import Path

import pytest

from everturn.cli.main import main
from everturn.contracts.chat import TurnStatus
from everturn.contracts.recording import Recording

# A turn of which no call is recorded.
BARE = Recording(
    turn_id="t",
    run=0,
    status=TurnStatus.FAILED,
    accepted={"user_id": "ann", "session_id": "s", "text": "Hi", "at": "2026-01-01T12:00:00.000Z"},
    context={"recent": []},
    recent=[],
    calls=[],
    decisions={},
    prompts={},
)


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path / "turn.json"


def written(file: Path, **changed: object) -> str:
    file.write_text(BARE.model_copy(update=changed).model_dump_json())
    return str(file)


def test_a_turn_that_comes_as_far_as_its_recording_is_the_same(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["turns", "replay", written(file)])

    assert code == 0
    assert capsys.readouterr().out.splitlines() == [
        "turn t: 0 of 0 recorded calls answered",
        "same: the recording ends before a reply, and the run comes as far",
    ]


def test_a_turn_that_departs_is_exit_code_1(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["turns", "replay", written(file, reply="hello")])

    assert code == 1
    assert "  would ask the model of assistant once more, which the recording does not have" in capsys.readouterr().out


def test_departures_are_json_for_programs(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["turns", "replay", written(file, reply="hello"), "--json"])

    found = json.loads(capsys.readouterr().out)
    assert (found["same"], found["ending"], [each["kind"] for each in found["departures"]]) == (
        False,
        "departure",
        ["call"],
    )


@pytest.mark.parametrize(
    ("changed", "fault"),
    [
        ({"everturn_recording": 2}, "is no recording of this version: make it with `everturn turns export`"),
        ({"accepted": {"user_id": "ann"}}, "the recording has a part that is no Accepted"),
    ],
    ids=["of another version", "with a part that cannot be read"],
)
def test_what_is_no_recording_is_refused(
    file: Path, changed: dict[str, object], fault: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code = main(["turns", "replay", written(file, **changed)])

    assert code == 1
    assert fault in capsys.readouterr().err

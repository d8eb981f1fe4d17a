"""Logs are events, in one form, and hold nothing of what people say."""

import asyncio
import io
import json
import logging

import pytest

from everturn import logs
from everturn.errors import TransientError

CANARY = "the-secret-i-told-you"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def stream() -> io.StringIO:
    target = io.StringIO()
    logs.configure(stream=target)
    return target


def written(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_record_is_one_json_line_where_the_output_is_no_terminal(stream: io.StringIO) -> None:
    logging.getLogger("everturn.chat.turn").warning("step_failed", extra={"turn_id": "t1", "attempt": 2})

    (line,) = written(stream)
    assert line["ts"]
    assert (line["level"], line["event"], line["logger"]) == ("warning", "step_failed", "everturn.chat.turn")
    assert (line["turn_id"], line["attempt"]) == ("t1", 2)


def test_a_terminal_gets_a_readable_line() -> None:
    terminal = Terminal()
    logs.configure(stream=terminal)

    logging.getLogger("everturn.chat.turn").warning("step_failed", extra={"turn_id": "t1"})

    assert "step_failed turn_id=t1" in terminal.getvalue()
    assert not terminal.getvalue().startswith("{")


def test_json_can_be_asked_for_on_a_terminal() -> None:
    terminal = Terminal()
    logs.configure(json=True, stream=terminal)

    logging.getLogger("everturn").info("started")

    assert written(terminal)[0]["event"] == "started"


def test_what_an_id_holds_cannot_steer_the_terminal() -> None:
    terminal = Terminal()
    logs.configure(json=False, stream=terminal)

    logging.getLogger("everturn").info("accepted", extra={"user_id": "eve\x1b[2J\nforged"})

    assert "\x1b[2J" not in terminal.getvalue()
    assert terminal.getvalue().count("\n") == 1


def test_our_own_fields_win_over_an_extra_of_the_same_name(stream: io.StringIO) -> None:
    logging.getLogger("everturn").info("accepted", extra={"event": "forged", "level": "forged"})

    assert written(stream)[0]["event"] == "accepted"
    assert written(stream)[0]["level"] == "info"


def test_the_message_of_one_of_our_errors_is_shown(stream: io.StringIO) -> None:
    error = TransientError("topic 'conversations' is unreachable", kind="unreachable")

    logging.getLogger("everturn").warning("publish_failed", extra={"error": error})

    assert written(stream)[0]["error"] == "TransientError(unreachable): topic 'conversations' is unreachable"


def test_of_a_foreign_exception_only_its_type_and_place_are_shown(stream: io.StringIO) -> None:
    try:
        raise ValueError(CANARY)
    except ValueError:
        logging.getLogger("everturn").exception("job_failed")

    (line,) = written(stream)
    assert line["error"] == "ValueError"
    assert "test_of_a_foreign_exception" in str(line["at"])
    assert CANARY not in stream.getvalue()


def test_an_exception_given_as_an_extra_shows_only_its_type(stream: io.StringIO) -> None:
    logging.getLogger("everturn").warning("job_failed", extra={"cause": ValueError(CANARY)})

    assert written(stream)[0]["cause"] == "ValueError"


@pytest.mark.parametrize("json_lines", [True, False])
def test_what_a_library_was_told_is_not_shown(json_lines: bool) -> None:
    target = io.StringIO()
    logs.configure(json=json_lines, stream=target)

    logging.getLogger("openai.agents").error("Error getting response: %s", CANARY)
    logging.getLogger("httpx2").warning(f"request {CANARY}")
    logging.getLogger("everturn").info("accepted %s", CANARY)

    assert CANARY not in target.getvalue()
    assert len(target.getvalue().splitlines()) == 3


async def test_an_exception_that_nobody_awaited_is_logged_without_its_words(stream: io.StringIO) -> None:
    async def fail() -> None:
        raise ValueError(CANARY)

    task = asyncio.ensure_future(fail())
    await asyncio.wait([task])
    asyncio.get_running_loop().call_exception_handler(
        {"message": "Task exception was never retrieved", "exception": task.exception(), "task": task}
    )

    assert "Task exception was never retrieved" in stream.getvalue()
    assert CANARY not in stream.getvalue()


def test_a_library_is_heard_from_warning_on_whatever_it_set_for_itself(stream: io.StringIO) -> None:
    library = logging.getLogger("some.library")
    library.setLevel(logging.DEBUG)

    library.info("connected")
    library.warning("lost %s", "x")

    assert [line["event"] for line in written(stream)] == ["lost %s"]


def test_uvicorn_writes_no_access_log_and_nothing_by_itself(stream: io.StringIO) -> None:
    logging.getLogger("uvicorn").addHandler(logging.StreamHandler(stream))
    logs.configure(stream=stream)

    logging.getLogger("uvicorn.access").warning('"GET /memories/%s"', CANARY)
    logging.getLogger("uvicorn.error").warning("Invalid HTTP request received.")

    assert [line["event"] for line in written(stream)] == ["Invalid HTTP request received."]


def test_the_last_configuration_counts() -> None:
    first, second = io.StringIO(), io.StringIO()
    logs.configure(stream=first)
    logs.configure(stream=second)

    logging.getLogger("everturn").info("started")

    assert first.getvalue() == ""
    assert len(written(second)) == 1


@pytest.mark.parametrize("time", ["first", "second"])
def test_no_test_leaves_logging_configured_for_the_next_one(time: str) -> None:
    before = [type(handler).__name__ for handler in logging.getLogger().handlers]
    levels = [logging.getLogger(name).level for name in ("everturn", "dotenv")]

    logs.configure(stream=io.StringIO())

    assert "StreamHandler" not in before, f"the {time} time"
    assert levels == [logging.NOTSET, logging.NOTSET]

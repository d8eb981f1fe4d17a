from datetime import UTC, datetime

import pytest

from everturn.chat.assistant.tools import current_time

NOW = datetime(2026, 1, 31, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize("arguments", ["", "{}", '{"timezone": null}', '{"timezone": ""}', '{"timezone": "UTC"}'])
def test_without_a_zone_the_time_is_in_utc(arguments: str) -> None:
    assert current_time(arguments, NOW) == "2026-01-31T12:00:00Z"


def test_with_a_zone_the_time_is_in_it() -> None:
    assert current_time('{"timezone": "Asia/Karachi"}', NOW) == "2026-01-31T17:00:00+05:00"


@pytest.mark.parametrize(
    "arguments",
    [
        "{",
        "[]",
        "7",
        '{"timezone": 7}',
        '{"timezone": "Mars/Olympus"}',
        '{"timezone": "America"}',
        '{"timezone": "../../etc/passwd"}',
        '{"timezone": "/etc/localtime"}',
        '{"timezone": "a\\u0000b"}',
        '{"timezone": "' + "x" * 65 + '"}',
    ],
)
def test_what_is_no_zone_is_said_to_the_model(arguments: str) -> None:
    assert current_time(arguments, NOW).startswith("error:")

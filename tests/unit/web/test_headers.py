import pytest

from everturn.web.headers import header_text


@pytest.mark.parametrize("meant", ["plain", "schlüssel", "鍵", "🔑", ""])
def test_what_was_sent_as_utf_8_is_read_as_utf_8(meant: str) -> None:
    assert header_text(meant.encode().decode("latin-1")) == meant


def test_what_is_no_utf_8_stays_what_it_is() -> None:
    assert header_text("schl\xfcssel") == "schl\xfcssel"

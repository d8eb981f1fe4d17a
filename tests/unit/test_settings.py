"""Settings are read once, checked in plain words, and every one is documented."""

import re
from pathlib import Path

import pytest

from everturn.errors import SettingError
from everturn.settings import Settings, load_settings

REFERENCE = Path(__file__).parent.parent.parent / "docs" / "reference" / "settings.md"


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in (*Settings.model_fields, "GEMINI_API_KEY"):
        monkeypatch.delenv(f"EVERTURN_{name.upper()}", raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refusal(monkeypatch: pytest.MonkeyPatch, **environment: str) -> str:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingError) as refused:
        load_settings()
    return refused.value.message


def test_the_defaults_are_those_of_the_contract() -> None:
    settings = load_settings()

    assert (settings.host, settings.chat_port, settings.memory_port) == ("127.0.0.1", 8010, 8001)
    assert (settings.request_wait_s, settings.shutdown_s, settings.keep_turns_days) == (60, 10, 30)
    fetch = (
        settings.fetch_attempts,
        settings.fetch_first_delay_s,
        settings.fetch_max_delay_s,
        settings.fetch_timeout_s,
    )
    assert fetch == (6, 0.2, 5, 5)
    assert (settings.max_text_chars, settings.history_tokens) == (32_000, 8_000)
    assert settings.cors_origins == ("http://localhost:3000",)


def test_every_setting_is_documented_with_its_meaning() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \|[^|]*\| (.+) \|$", REFERENCE.read_text("utf-8"), re.MULTILINE))

    for name, field in Settings.model_fields.items():
        assert field.description, f"{name} has no description"
        assert field.description in rows.values(), f"{name} is not in {REFERENCE.name}"
    assert len(rows) == len(Settings.model_fields)


def test_the_environment_wins_over_the_file(empty_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (empty_folder / ".env").write_text("EVERTURN_CHAT_PORT=9001\nEVERTURN_MEMORY_PORT=9002\n")
    monkeypatch.setenv("EVERTURN_CHAT_PORT", "9003")

    settings = load_settings()

    assert (settings.chat_port, settings.memory_port) == (9003, 9002)


def test_an_unreadable_file_is_a_wrong_setting(empty_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (empty_folder / ".env").write_bytes(b"EVERTURN_HOST=\xff\xfe\n")

    assert ".env" in refusal(monkeypatch)


def test_an_empty_value_means_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVERTURN_CHAT_PORT", "")
    monkeypatch.setenv("GEMINI_API_KEY", "")

    settings = load_settings()

    assert settings.chat_port == 8010
    assert settings.gemini_api_key is None


def test_origins_are_comma_separated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVERTURN_CORS_ORIGINS", "http://a.example, http://b.example,")

    assert load_settings().cors_origins == ("http://a.example", "http://b.example")


@pytest.mark.parametrize("port", ["0", "65536", "eighty", "-1"])
def test_a_wrong_port_is_named_in_one_line(port: str, monkeypatch: pytest.MonkeyPatch) -> None:
    sentence = refusal(monkeypatch, EVERTURN_CHAT_PORT=port)

    assert sentence.startswith("EVERTURN_CHAT_PORT: ")
    assert repr(port) in sentence
    assert "\n" not in sentence


@pytest.mark.parametrize("setting", ["EVERTURN_KEEP_TURNS_DAYS", "EVERTURN_KEEP_WORKFLOWS_HOURS"])
@pytest.mark.parametrize("span", ["0", "nan", "inf", "1e12"])
def test_a_time_to_keep_things_that_no_calendar_holds_is_refused(
    monkeypatch: pytest.MonkeyPatch, setting: str, span: str
) -> None:
    message = refusal(monkeypatch, **{setting: span})

    assert message.startswith(f"{setting}: ")


def test_a_window_of_history_beyond_all_numbers_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    message = refusal(monkeypatch, EVERTURN_HISTORY_TOKENS="1000000000001")

    assert message.startswith("EVERTURN_HISTORY_TOKENS: ")


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "inf", "soon"])
def test_a_time_that_is_no_positive_number_is_refused(seconds: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "EVERTURN_REQUEST_WAIT_S" in refusal(monkeypatch, EVERTURN_REQUEST_WAIT_S=seconds)


def test_two_services_on_one_port_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    sentence = refusal(monkeypatch, EVERTURN_CHAT_PORT="9000", EVERTURN_MEMORY_PORT="9000")

    assert "EVERTURN_CHAT_PORT and EVERTURN_MEMORY_PORT" in sentence


def test_every_wrong_setting_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    sentence = refusal(monkeypatch, EVERTURN_CHAT_PORT="x", EVERTURN_SHUTDOWN_S="y")

    assert "EVERTURN_CHAT_PORT" in sentence
    assert "EVERTURN_SHUTDOWN_S" in sentence


def test_a_name_without_an_endpoint_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "EVERTURN_MODEL_BASE_URL" in refusal(monkeypatch, EVERTURN_MODEL_NAME="gpt")


def test_an_endpoint_without_a_name_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "EVERTURN_MODEL_NAME" in refusal(monkeypatch, EVERTURN_MODEL_BASE_URL="http://localhost:1/v1")


@pytest.mark.parametrize("url", ["localhost:11434/v1", "ftp://x/v1", "http://", "http://host:99999/v1"])
def test_an_endpoint_that_is_no_url_is_refused(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    sentence = refusal(monkeypatch, EVERTURN_MODEL_BASE_URL=url, EVERTURN_MODEL_NAME="m")

    assert "EVERTURN_MODEL_BASE_URL" in sentence


def test_a_key_is_never_in_a_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    sentence = refusal(monkeypatch, EVERTURN_MODEL_API_KEY="canary-key", GEMINI_API_KEY="canary-too")

    assert "canary" not in sentence


def test_a_key_is_never_in_the_text_of_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GEMINI_API_KEY", "canary-key")

    assert "canary" not in repr(load_settings())

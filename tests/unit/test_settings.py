"""Settings are read once, checked in plain words, and every one is documented."""

import re
from pathlib import Path

import pytest
from pydantic import SecretStr

from everturn import logs
from everturn.errors import SettingError
from everturn.settings import Settings, load_settings, unknown_settings, warn_of_settings

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


@pytest.mark.parametrize(
    ("setting", "values"),
    [
        ("EVERTURN_KEEP_TURNS_DAYS", ("0", "nan", "inf", "1e12")),
        ("EVERTURN_KEEP_WORKFLOWS_HOURS", ("0", "nan", "inf", "1e12")),
        ("EVERTURN_HISTORY_TOKENS", ("1000000000001",)),
        ("EVERTURN_REQUEST_WAIT_S", ("0", "-1", "nan", "inf", "soon")),
    ],
)
def test_a_number_out_of_its_range_is_refused(
    monkeypatch: pytest.MonkeyPatch, setting: str, values: tuple[str, ...]
) -> None:
    for value in values:
        assert refusal(monkeypatch, **{setting: value}).startswith(f"{setting}: ")


def test_two_services_on_one_port_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    sentence = refusal(monkeypatch, EVERTURN_CHAT_PORT="9000", EVERTURN_MEMORY_PORT="9000")

    assert "EVERTURN_CHAT_PORT and EVERTURN_MEMORY_PORT" in sentence


def test_every_wrong_setting_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    sentence = refusal(monkeypatch, EVERTURN_CHAT_PORT="x", EVERTURN_SHUTDOWN_S="y")

    assert "EVERTURN_CHAT_PORT" in sentence
    assert "EVERTURN_SHUTDOWN_S" in sentence


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


@pytest.mark.parametrize(
    ("given", "missing"),
    [
        ({"EVERTURN_AUTH": "header"}, "EVERTURN_PROXY_TOKEN"),
        ({"EVERTURN_AUTH": "header", "EVERTURN_PROXY_TOKEN": " "}, "EVERTURN_PROXY_TOKEN"),
        ({"EVERTURN_AUTH": "jwt"}, "EVERTURN_JWT_JWKS"),
        (
            {"EVERTURN_AUTH": "jwt", "EVERTURN_JWT_JWKS": "keys.json", "EVERTURN_JWT_ISSUER": "i"},
            "EVERTURN_JWT_AUDIENCE",
        ),
        ({"EVERTURN_AUTH": "cookie"}, "EVERTURN_AUTH"),
        ({"EVERTURN_USER_HEADER": "x user"}, "EVERTURN_USER_HEADER"),
        ({"EVERTURN_MODEL_NAME": "gpt"}, "EVERTURN_MODEL_BASE_URL"),
        ({"EVERTURN_MODEL_BASE_URL": "http://localhost:1/v1"}, "EVERTURN_MODEL_NAME"),
    ],
)
def test_a_way_to_sign_in_or_a_model_without_what_it_needs_is_refused(
    monkeypatch: pytest.MonkeyPatch, given: dict[str, str], missing: str
) -> None:
    assert missing in refusal(monkeypatch, **given)


def test_a_model_of_gemini_is_named_beside_its_key_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GEMINI_API_KEY", "k")
    monkeypatch.setenv("EVERTURN_MODEL_NAME", "gemini-3-pro")

    assert load_settings().model_name == "gemini-3-pro"


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("EVERTURN_MODLE", "EVERTURN_MODEL_NAME"),
        ("everturn_chat_prot", "EVERTURN_CHAT_PORT"),
        ("EVERTRUN_MODEL_NAME", "EVERTURN_MODEL_NAME"),
        ("GEMINI_APIKEY", "GEMINI_API_KEY"),
        ("EVERTURN_XYZ", None),
    ],
)
def test_a_name_that_no_setting_reads_is_warned_of_with_the_nearest_one(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, given: str, meant: str | None
) -> None:
    monkeypatch.setenv(given, "canary-value")

    warn_of_settings()

    (record,) = caplog.records
    assert (record.levelname, record.msg) == ("WARNING", "setting_unknown")
    expected = f": did you mean {meant}?" if meant else "; it is ignored"
    assert vars(record)["advice"] == f"{given.upper()} is no setting{expected}"
    assert "canary" not in str(vars(record))


NOT_PREFIXED = {"gemini_api_key": "k", "dapr_http_port": "9", "dapr_grpc_port": "9", "app_api_token": "k"}


@pytest.mark.parametrize("in_file", [True, False])
def test_what_is_warned_of_is_no_setting(empty_folder: Path, monkeypatch: pytest.MonkeyPatch, in_file: bool) -> None:
    given = {f"EVERTURN_{field.upper()}": value for field, value in NOT_PREFIXED.items()}
    if in_file:
        (empty_folder / ".env").write_text("".join(f"{name}={value}\n" for name, value in given.items()))
    for name, value in {} if in_file else given.items():
        monkeypatch.setenv(name, value)

    settings = load_settings()

    assert unknown_settings().keys() == given.keys()
    defaults = {field: Settings.model_fields[field].default for field in NOT_PREFIXED}
    assert settings.model_dump(include=set(NOT_PREFIXED)) == defaults


@pytest.mark.parametrize("in_file", [True, False])
def test_each_setting_is_read_by_its_name_in_the_reference(
    empty_folder: Path, monkeypatch: pytest.MonkeyPatch, in_file: bool
) -> None:
    given = {"GEMINI_API_KEY": "k", "dapr_http_port": "9", "Everturn_Host": "there"}
    if in_file:
        (empty_folder / ".env").write_text("".join(f"{name}={value}\n" for name, value in given.items()))
    for name, value in {} if in_file else given.items():
        monkeypatch.setenv(name, value)

    settings = load_settings()

    assert (settings.gemini_api_key, settings.dapr_http_port, settings.host) == (SecretStr("k"), 9, "there")
    assert unknown_settings() == {}


def test_a_wrong_name_in_the_file_is_found_as_well(empty_folder: Path) -> None:
    (empty_folder / ".env").write_text("EVERTURN_HOTS=0.0.0.0\nEVERTURN_HOST=127.0.0.1\n")

    assert unknown_settings() == {"EVERTURN_HOTS": "EVERTURN_HOST"}


def test_a_line_of_the_file_that_is_no_setting_is_warned_of_once(
    empty_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (empty_folder / ".env").write_text("EVERTURN_HOST=localhost\n\nswordfish is no setting\n")
    (empty_folder / ".env").chmod(0o600)
    logs.configure(json=False)

    load_settings()
    warn_of_settings()

    said = capsys.readouterr().err
    assert "advice=line 3 of .env is not a name and a value; it is ignored" in said
    assert said.count("\n") == 1
    assert "swordfish" not in said


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("abc", "EVERTURN_CHAT_PORT: must be a valid integer (it is 'abc')"),
        ("99999", "EVERTURN_CHAT_PORT: must be less than or equal to 65535 (it is '99999')"),
    ],
)
def test_a_wrong_number_is_said_in_plain_words(monkeypatch: pytest.MonkeyPatch, value: str, says: str) -> None:
    assert refusal(monkeypatch, EVERTURN_CHAT_PORT=value) == says


def test_names_of_other_programs_are_not_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "DAPR_HTTP_ENDPOINT", "DAPR_GRPC_ENDPOINT", "APP_PORT", "APP_ID", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "x")

    assert unknown_settings() == {}


@pytest.mark.parametrize(("mode", "is_open"), [(0o644, True), (0o604, True), (0o640, False), (0o600, False)])
def test_a_file_whose_keys_every_user_can_read_is_warned_of(
    empty_folder: Path, caplog: pytest.LogCaptureFixture, mode: int, is_open: bool
) -> None:
    file = empty_folder / ".env"
    file.write_text("GEMINI_API_KEY=canary\nEVERTURN_OPERATOR_TOKEN=canary\nEVERTURN_TOKEN=\nEVERTURN_HOST=localhost\n")
    file.chmod(mode)

    warn_of_settings()

    advice = "every user of this machine can read EVERTURN_OPERATOR_TOKEN, GEMINI_API_KEY in .env: chmod 600 .env"
    assert [vars(record)["advice"] for record in caplog.records] == [advice] * is_open
    assert "canary" not in str([vars(record) for record in caplog.records])


def test_an_open_file_without_keys_is_not_warned_of(empty_folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    (empty_folder / ".env").write_text("EVERTURN_HOST=localhost\n")
    (empty_folder / ".env").chmod(0o644)

    warn_of_settings()

    assert caplog.records == []


def test_the_secrets_that_services_ask_for_are_the_usual_one_and_the_one_that_is_named() -> None:
    assert Settings(_env_file=None).secret_names == {"EVERTURN_MODEL_API_KEY"}
    assert Settings(_env_file=None, model_api_key_secret="llama").secret_names == {"EVERTURN_MODEL_API_KEY", "llama"}

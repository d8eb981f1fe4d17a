"""The settings of a process: read once from the environment or a `.env` file, frozen, documented.

`docs/reference/settings.md` lists each of them; a test fails when one is missing there.
"""

import logging
import os
import re
import stat
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Literal, Self

from dotenv import dotenv_values
from dotenv.parser import parse_stream
from pydantic import (
    BeforeValidator,
    Field,
    HttpUrl,
    SecretStr,
    TypeAdapter,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from everturn.contracts.chat import Overlap
from everturn.errors import SettingError

log = logging.getLogger(__name__)

# https://ai.google.dev/gemini-api/docs/openai
GEMINI_BASE_URL = "https://generativelanguage.googleapis.com/v1beta/openai/"
GEMINI_MODEL_NAME = "gemini-2.5-flash"
OFFLINE_MODEL_NAME = "offline-demo"
# The secret that is the model's key if no setting names another.
USUAL_KEY_SECRET = "EVERTURN_MODEL_API_KEY"  # noqa: S105 - the name of one

Port = Annotated[int, Field(ge=1, le=65535)]
Attempts = Annotated[int, Field(ge=1, le=1_000)]
Seconds = Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)]
# A century. Twice as many days, added to any date of today, are still a date (claims are kept twice as long as turns).
_MOST_DAYS = 36_500
Days = Annotated[float, Field(gt=0, le=_MOST_DAYS, allow_inf_nan=False)]
Hours = Annotated[float, Field(gt=0, le=24 * _MOST_DAYS, allow_inf_nan=False)]


def _blank_is_unset(value: object) -> object:
    return None if isinstance(value, str) and not value.strip() else value


def _split(value: object) -> object:
    return tuple(item.strip() for item in value.split(",") if item.strip()) if isinstance(value, str) else value


OptionalText = Annotated[str | None, BeforeValidator(_blank_is_unset)]
OptionalSecret = Annotated[SecretStr | None, BeforeValidator(_blank_is_unset)]
Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)]
Level = Annotated[Literal["debug", "info", "warn", "error", "fatal"], BeforeValidator(str.lower)]
_PREFIX, _ENV_FILE = "EVERTURN_", ".env"
# Of difflib's ratio: for a name that begins like ours; for one of the many others, of which one letter may be wrong.
_SOMEWHAT_LIKE, _ALMOST_THE_SAME = 0.5, 0.88
# Far more than any model takes; in characters still a number that every JSON reader keeps (RFC 8259 section 6).
_MOST_TOKENS = 1_000_000_000


class Settings(BaseSettings):
    """Every setting of both services and of the embedded runtime."""

    model_config = SettingsConfigDict(
        env_prefix=_PREFIX,
        env_file=_ENV_FILE,
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        populate_by_name=True,
    )

    data_dir: Path = Field(Path(".everturn"), description="folder in which the embedded runtime keeps everything")
    log_level: Level = Field(
        "info", description="least important events that are logged: `debug`, `info`, `warn`, `error` or `fatal`"
    )
    host: str = Field("127.0.0.1", min_length=1, description="address that both services listen on")
    chat_port: Port = Field(8010, description="port of the chat service")
    memory_port: Port = Field(8001, description="port of the agent memory service")
    metrics_port: Port | None = Field(
        None,
        description="port on which `everturn serve` gives `/metrics` and nothing else, without a token, beside the "
        "service's own: for a network that lets monitoring to it alone",
    )

    model_base_url: OptionalText = Field(None, description="base URL of an OpenAI-compatible endpoint, with its `/v1`")
    model_name: OptionalText = Field(None, description="name of the model at that endpoint, or of Gemini's")
    model_api_key: OptionalSecret = Field(None, description="key for that endpoint; without one none is sent")
    model_api_key_secret: OptionalText = Field(
        None,
        description="name of that key in the sidecar's store `secretstore`, if `EVERTURN_MODEL_API_KEY` is not set; "
        "without it a secret `EVERTURN_MODEL_API_KEY` is used if there is one",
    )
    gemini_api_key: OptionalSecret = Field(
        None,
        validation_alias="GEMINI_API_KEY",
        description="means Gemini, with `EVERTURN_MODEL_NAME` or its default; `EVERTURN_MODEL_BASE_URL` wins over it",
    )

    demo_word_s: float = Field(
        0, ge=0, le=60, allow_inf_nan=False, description="seconds that the offline demo takes for a word of its reply"
    )

    request_wait_s: Seconds = Field(60, description="seconds that `POST /chat/` waits before it answers 202")
    shutdown_s: Seconds = Field(10, description="seconds that a graceful stop may take")

    fetch_attempts: Attempts = Field(6, description="attempts of `fetch_context`; after the last the turn is degraded")
    fetch_first_delay_s: Seconds = Field(0.2, description="seconds before the second attempt of `fetch_context`")
    fetch_max_delay_s: Seconds = Field(5, description="most seconds between two attempts of `fetch_context`")
    fetch_timeout_s: Seconds = Field(5, description="seconds that one attempt of `fetch_context` may take")
    generate_give_up_s: Seconds = Field(
        3_600,
        description="seconds for which transient faults of the model are retried: attempts and planned delays since "
        "the last call that succeeded; then the turn fails",
    )
    generate_attempts: Attempts | None = Field(
        None, description="attempts of `generate_response`, as a further limit; without it there is none"
    )
    generate_first_delay_s: Seconds = Field(1, description="seconds before the second attempt of `generate_response`")
    generate_max_delay_s: Seconds = Field(30, description="most seconds between two attempts of `generate_response`")
    assistant: OptionalText = Field(
        None,
        description="an `Agent` of your own, of the Agents SDK, as `module:agent`; without a model it gets this one",
    )
    generate_timeout_s: Seconds = Field(60, description="seconds that one call of the model may take")
    overlap: Overlap = Field(
        Overlap.QUEUE,
        description="what becomes of a message that comes while a turn of its session has not ended, if its "
        "`metadata.overlap` does not say: `queue`, `reject`, `interrupt` or `merge`",
    )
    approval_timeout_s: Seconds | None = Field(
        None,
        description="seconds that a person has to decide about a call; then it is rejected. Without it, and at most, "
        "a turn waits as long as turns are kept",
    )
    waiting_turns: Literal["hold", "pass"] = Field(
        "hold",
        description="what a turn that waits for a person does to its session: `hold`, later messages wait as well; "
        "`pass`, they are answered, and the turn goes to the end of its session once it is decided",
    )
    user_daily_tokens: int | None = Field(
        None, ge=1, description="tokens that the turns of one user may use a day (UTC); then messages get 429"
    )
    max_model_calls_per_turn: int = Field(11, ge=1, description="model calls of one turn; a turn that needs more fails")
    save_attempts: Attempts = Field(
        8, description="attempts to deliver an event that could not be sent at once, before a longer pause"
    )
    save_first_delay_s: Seconds = Field(0.2, description="seconds before the second attempt to deliver an event")
    save_max_delay_s: Seconds = Field(30, description="most seconds between two attempts to deliver an event")
    save_timeout_s: Seconds = Field(10, description="seconds that one attempt of `save_conversation` may take")

    max_text_chars: int = Field(32_000, ge=1, description="longest text of a message, in characters; longer gets 413")
    history_tokens: int = Field(
        8_000, ge=1, le=_MOST_TOKENS, description="window of history for a model call, in tokens of 4 characters"
    )
    summary_quiet_s: Seconds = Field(
        30, description="seconds without a new turn after which a session's turns are brought into its user's summary"
    )
    summary_turns: int = Field(8, ge=1, description="new turns of a session that are brought into the summary at once")
    max_requests: int = Field(2_000, ge=1, description="messages that are answered at once; more get 503")
    max_streams_per_user: int = Field(
        100, ge=1, description="streams of events that one user may have open in a process; more get 429"
    )
    max_model_calls: int = Field(200, ge=1, description="replies that are generated at once; more wait their turn")
    max_open_turns_per_user: int = Field(
        50, ge=1, description="turns of one user that have not ended; a message beyond it gets 429"
    )
    max_inflight_steps: int = Field(
        20_000,
        ge=1,
        description="steps that run or wait for their place at once; at more, new messages get 503",
    )
    keep_workflows_hours: Hours = Field(24, description="hours that the workflow of an ended turn is kept")
    keep_turns_days: Days = Field(30, description="days that a turn's record, reply and key are kept")
    keep_words_s: Seconds = Field(
        3_600,
        description="seconds that the words of a stream are kept after the end of its turn, at least; then its "
        "events give the reply as a whole",
    )
    cors_origins: Names = Field(
        ("http://localhost:3000",), description="comma-separated origins that browsers may call from"
    )
    allowed_hosts: Names = Field(
        (),
        description="comma-separated names that clients may call the services and the runtime by, besides loopback "
        "names, IP addresses and `EVERTURN_HOST`; `*.example.com` is every name under it, `*` every name",
    )

    auth: Literal["none", "header", "jwt"] = Field(
        "none",
        description="who may call: `none`, anybody, and the user is who the body says; `header`, users whom a proxy in "
        "front has signed in; `jwt`, users with a token of an identity provider",
    )
    user_header: str = Field(
        "x-forwarded-user", description="header in which the proxy names the user, for `EVERTURN_AUTH=header`"
    )
    proxy_token: OptionalSecret = Field(
        None, description="what the proxy sends as `x-everturn-proxy-token`, for `EVERTURN_AUTH=header`"
    )
    jwt_jwks: OptionalText = Field(
        None, description="URL or file of the identity provider's public keys (JWKS), for `EVERTURN_AUTH=jwt`"
    )
    jwt_issuer: OptionalText = Field(None, description="`iss` that a token must have, for `EVERTURN_AUTH=jwt`")
    jwt_audience: OptionalText = Field(None, description="`aud` that a token must have, for `EVERTURN_AUTH=jwt`")
    jwt_user_claim: str = Field("sub", min_length=1, description="claim that is the user id, for `EVERTURN_AUTH=jwt`")
    operator_token: OptionalSecret = Field(
        None, description="Bearer token of an operator, who sees and steers what belongs to any user"
    )

    token: OptionalSecret = Field(
        None,
        description="Bearer token with which `everturn chat` and `everturn turns` sign in: a user's or an operator's",
    )

    dapr_http_port: Port = Field(3500, validation_alias="DAPR_HTTP_PORT", description="HTTP port of the sidecar")
    dapr_grpc_port: Port = Field(50001, validation_alias="DAPR_GRPC_PORT", description="gRPC port of the sidecar")
    dapr_api_token: OptionalSecret = Field(
        None,
        validation_alias="DAPR_API_TOKEN",
        description="token that the sidecar asks of the services",
    )
    app_api_token: OptionalSecret = Field(
        None,
        validation_alias="APP_API_TOKEN",
        description="token that the memory service asks of its callers",
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """A setting has one name in the environment and the file; by that of its field, it is given in code alone."""
        names = {environment_name(field) for field in settings_cls.model_fields}
        for source in (env_settings, dotenv_settings):
            assert isinstance(source, EnvSettingsSource)
            source.env_vars = {name: value for name, value in source.env_vars.items() if name.upper() in names}
        return init_settings, env_settings, dotenv_settings, file_secret_settings

    @property
    def secret_names(self) -> frozenset[str]:
        """The secrets that a service asks its sidecar for."""
        return frozenset({USUAL_KEY_SECRET, self.model_api_key_secret or USUAL_KEY_SECRET})

    @model_validator(mode="after")
    def _model_is_complete(self) -> Self:
        if self.model_base_url is None and self.model_api_key:
            raise ValueError(
                "EVERTURN_MODEL_API_KEY is set but EVERTURN_MODEL_BASE_URL is not: set it to the endpoint's base URL"
            )
        if self.model_base_url is None and self.model_name and self.gemini_api_key is None:
            raise ValueError(
                "EVERTURN_MODEL_NAME is set but EVERTURN_MODEL_BASE_URL is not: set it to the endpoint's base URL, or "
                "set GEMINI_API_KEY for a model of Gemini"
            )
        if self.model_base_url is not None:
            if not _is_http_url(self.model_base_url):
                raise ValueError("EVERTURN_MODEL_BASE_URL must be a whole URL that begins with http:// or https://")
            if self.model_name is None:
                raise ValueError("EVERTURN_MODEL_BASE_URL is set but EVERTURN_MODEL_NAME is not: name the model to use")
        return self

    @field_validator("user_header")
    @classmethod
    def _is_header(cls, value: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9-]+", value):
            raise ValueError("must be the name of a header, of letters, digits and hyphens")
        return value.lower()

    @model_validator(mode="after")
    def _auth_is_complete(self) -> Self:
        needed = {"header": ("proxy_token",), "jwt": ("jwt_jwks", "jwt_issuer", "jwt_audience")}
        for name in needed.get(self.auth, ()):
            if getattr(self, name) is None:
                raise ValueError(f"EVERTURN_AUTH is {self.auth} but EVERTURN_{name.upper()} is not set: set it too")
        return self

    @model_validator(mode="after")
    def _ports_differ(self) -> Self:
        if self.chat_port == self.memory_port:
            raise ValueError(
                f"EVERTURN_CHAT_PORT and EVERTURN_MEMORY_PORT are both {self.chat_port}: change one of them"
            )
        return self


_SECRETS = [name for name, field in Settings.model_fields.items() if "SecretStr" in str(field.annotation)]


def load_settings() -> Settings:
    """Read the settings of this process.

    Raises SettingError with one line that names each wrong setting and says what it must be. Values are not repeated
    if they could be keys.
    """
    try:
        return Settings()
    except ValidationError as error:
        raise SettingError("; ".join(_sentence(fault) for fault in error.errors(include_url=False))) from None
    except (OSError, UnicodeDecodeError) as error:
        raise SettingError(
            f"the file .env cannot be read ({type(error).__name__}): make it a readable UTF-8 file"
        ) from None


def environment_name(setting: str) -> str:
    """The name of the environment variable that the field `setting` is read from."""
    return str(Settings.model_fields[setting].validation_alias or f"{_PREFIX}{setting}".upper())


def unknown_settings() -> dict[str, str | None]:
    """What the environment or the file `.env` gives and no setting reads, with the setting that may be meant.

    These are names that begin like ours, and names that are almost one of ours.
    """
    known = {environment_name(name) for name in Settings.model_fields}
    rests = {name.removeprefix(_PREFIX): name for name in known}
    unknown: dict[str, str | None] = {}
    for name in sorted({name.upper() for name in (*os.environ, *dotenv_values(_ENV_FILE))} - known):
        if name.startswith(_PREFIX):
            near = get_close_matches(name.removeprefix(_PREFIX), rests, 1, _SOMEWHAT_LIKE)
            unknown[name] = rests[near[0]] if near else None
        elif near := get_close_matches(name, known, 1, _ALMOST_THE_SAME):
            unknown[name] = near[0]
    return unknown


def setting_warnings() -> list[tuple[str, str]]:
    """What may be wrong and keeps no process from starting: the name of its event, and what to do.

    That is each of `unknown_settings`, a line of the file `.env` that is none, and such a file whose keys every user
    can read.
    """
    found = []
    for name, near in unknown_settings().items():
        advice = f": did you mean {near}?" if near else "; it is ignored"
        found.append(("setting_unknown", f"{name} is no setting{advice}"))
    advice = f"line {{}} of {_ENV_FILE} is not a name and a value; it is ignored"
    found += [("env_file_line", advice.format(line)) for line in _wrong_lines()]
    if keys := _keys_open_to_all():
        advice = f"every user of this machine can read {', '.join(keys)} in {_ENV_FILE}: chmod 600 {_ENV_FILE}"
        found.append(("env_file_open", advice))
    return found


def warn_of_settings() -> None:
    """Log each of `setting_warnings`."""
    for event, advice in setting_warnings():
        log.warning(event, extra={"advice": advice})


def _wrong_lines() -> list[int]:
    file = Path(_ENV_FILE)
    if not file.is_file():
        return []
    with file.open(encoding="utf-8") as text:
        found = [(part.original.line, part.original.string) for part in parse_stream(text) if part.error]
    # Blank lines before it are part of it.
    return [line + string[: -len(string.lstrip())].count("\n") for line, string in found]


def _keys_open_to_all() -> list[str]:
    """The secret settings that the file `.env` gives, if those who are not its owner or of its group may read it."""
    file = Path(_ENV_FILE)
    if os.name != "posix" or not file.is_file() or not file.stat().st_mode & stat.S_IROTH:
        return []
    given = {name.upper() for name, value in dotenv_values(file).items() if value}
    return sorted(environment_name(name) for name in _SECRETS if environment_name(name) in given)


def _is_http_url(value: str) -> bool:
    try:
        TypeAdapter(HttpUrl).validate_python(value)
    except ValidationError:
        return False
    return True


def _sentence(fault: object) -> str:
    assert isinstance(fault, dict)
    message = str(fault["msg"]).removeprefix("Value error, ").partition(", unable to parse")[0]
    message = message.replace("Input should be", "must be")
    if not fault["loc"]:
        return message
    name = str(fault["loc"][0])
    shown = environment_name(name) if name in Settings.model_fields else name
    value = "" if name in _SECRETS else f" (it is {str(fault['input'])[:60]!r})"
    return f"{shown}: {message[:1].lower()}{message[1:]}{value}"

"""The settings of a process: read once from the environment or a `.env` file, frozen, documented.

`docs/reference/settings.md` lists each of them; a test fails when one is missing there.
"""

from pathlib import Path
from typing import Annotated, Self

from pydantic import (
    AliasChoices,
    Field,
    HttpUrl,
    SecretStr,
    TypeAdapter,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from everturn.errors import SettingError

# https://ai.google.dev/gemini-api/docs/openai
GEMINI_BASE_URL = "https://generativelanguage.googleapis.com/v1beta/openai/"
GEMINI_MODEL_NAME = "gemini-2.5-flash"
OFFLINE_MODEL_NAME = "offline-demo"

Port = Annotated[int, Field(ge=1, le=65535)]
Attempts = Annotated[int, Field(ge=1, le=1_000)]
Seconds = Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)]
# A century. Twice as many days, added to any date of today, are still a date (claims are kept twice as long as turns).
_MOST_DAYS = 36_500
Days = Annotated[float, Field(gt=0, le=_MOST_DAYS, allow_inf_nan=False)]
Hours = Annotated[float, Field(gt=0, le=24 * _MOST_DAYS, allow_inf_nan=False)]
# Far more than any model takes; in characters still a number that every JSON reader keeps (RFC 8259 section 6).
_MOST_TOKENS = 1_000_000_000


class Settings(BaseSettings):
    """Every setting of both services and of the embedded runtime."""

    model_config = SettingsConfigDict(
        env_prefix="EVERTURN_",
        env_file=".env",
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        populate_by_name=True,
    )

    data_dir: Path = Field(Path(".everturn"), description="folder in which the embedded runtime keeps everything")
    host: str = Field("127.0.0.1", min_length=1, description="address that both services listen on")
    chat_port: Port = Field(8010, description="port of the chat service")
    memory_port: Port = Field(8001, description="port of the agent memory service")

    model_base_url: str | None = Field(None, description="base URL of an OpenAI-compatible endpoint, with its `/v1`")
    model_name: str | None = Field(None, description="name of the model at that endpoint")
    model_api_key: SecretStr | None = Field(None, description="key for that endpoint; without one none is sent")
    model_api_key_secret: str | None = Field(
        None,
        description="name of that key in the sidecar's store `secretstore`, where `EVERTURN_MODEL_API_KEY` is not set; "
        "without it a secret `EVERTURN_MODEL_API_KEY` is used if there is one",
    )
    gemini_api_key: SecretStr | None = Field(
        None,
        validation_alias=AliasChoices("GEMINI_API_KEY", "gemini_api_key"),
        description="alone, it means Gemini; `EVERTURN_MODEL_*` wins over it",
    )

    request_wait_s: Seconds = Field(60, description="seconds that `POST /chat/` waits before it answers 202")
    shutdown_s: Seconds = Field(10, description="seconds that a graceful stop may take")

    fetch_attempts: Attempts = Field(6, description="attempts of `fetch_context`; after the last the turn is degraded")
    fetch_first_delay_s: Seconds = Field(0.2, description="seconds before the second attempt of `fetch_context`")
    fetch_max_delay_s: Seconds = Field(5, description="most seconds between two attempts of `fetch_context`")
    fetch_timeout_s: Seconds = Field(5, description="seconds that one attempt of `fetch_context` may take")
    generate_attempts: Attempts = Field(5, description="attempts of `generate_response`; after the last the turn fails")
    generate_first_delay_s: Seconds = Field(1, description="seconds before the second attempt of `generate_response`")
    generate_max_delay_s: Seconds = Field(30, description="most seconds between two attempts of `generate_response`")
    generate_timeout_s: Seconds = Field(60, description="seconds that one attempt of `generate_response` may take")
    save_attempts: Attempts = Field(8, description="attempts of `save_conversation`; after the last the event waits")
    save_first_delay_s: Seconds = Field(0.2, description="seconds before the second attempt of `save_conversation`")
    save_max_delay_s: Seconds = Field(30, description="most seconds between two attempts of `save_conversation`")
    save_timeout_s: Seconds = Field(10, description="seconds that one attempt of `save_conversation` may take")

    max_text_chars: int = Field(32_000, ge=1, description="longest text of a message, in characters; longer gets 413")
    history_tokens: int = Field(
        8_000, ge=1, le=_MOST_TOKENS, description="window of history for a model call, in tokens of 4 characters"
    )
    max_requests: int = Field(2_000, ge=1, description="messages that are answered at once; more get 503")
    max_model_calls: int = Field(200, ge=1, description="replies that are generated at once; more wait their turn")
    max_turns_at_once: int = Field(
        20_000,
        ge=1,
        description="steps that run or wait for their place at once; at more, new messages get 503",
    )
    keep_workflows_hours: Hours = Field(24, description="hours that the workflow of an ended turn is kept")
    keep_turns_days: Days = Field(30, description="days that a turn's record, reply and key are kept")
    cors_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        ("http://localhost:3000",), description="comma-separated origins that browsers may call from"
    )

    dapr_http_port: Port = Field(
        3500, validation_alias=AliasChoices("DAPR_HTTP_PORT", "dapr_http_port"), description="HTTP port of the sidecar"
    )
    dapr_grpc_port: Port = Field(
        50001, validation_alias=AliasChoices("DAPR_GRPC_PORT", "dapr_grpc_port"), description="gRPC port of the sidecar"
    )
    dapr_api_token: SecretStr | None = Field(
        None,
        validation_alias=AliasChoices("DAPR_API_TOKEN", "dapr_api_token"),
        description="token that the sidecar asks of the services",
    )
    app_api_token: SecretStr | None = Field(
        None,
        validation_alias=AliasChoices("APP_API_TOKEN", "app_api_token"),
        description="token that the memory service asks of its callers",
    )

    @field_validator("cors_origins", mode="before")
    @classmethod
    def _split_origins(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(origin.strip() for origin in value.split(",") if origin.strip())
        return value

    @field_validator(
        "model_base_url",
        "model_name",
        "model_api_key",
        "model_api_key_secret",
        "gemini_api_key",
        "dapr_api_token",
        "app_api_token",
        mode="before",
    )
    @classmethod
    def _empty_is_unset(cls, value: object) -> object:
        return None if isinstance(value, str) and not value.strip() else value

    @model_validator(mode="after")
    def _model_is_complete(self) -> Self:
        if self.model_base_url is None and (self.model_name or self.model_api_key):
            given = "EVERTURN_MODEL_NAME" if self.model_name else "EVERTURN_MODEL_API_KEY"
            raise ValueError(f"{given} is set but EVERTURN_MODEL_BASE_URL is not: set it to the endpoint's base URL")
        if self.model_base_url is not None:
            if not _is_http_url(self.model_base_url):
                raise ValueError("EVERTURN_MODEL_BASE_URL must be a whole URL that begins with http:// or https://")
            if self.model_name is None:
                raise ValueError("EVERTURN_MODEL_BASE_URL is set but EVERTURN_MODEL_NAME is not: name the model to use")
        return self

    @model_validator(mode="after")
    def _ports_differ(self) -> Self:
        if self.chat_port == self.memory_port:
            raise ValueError(
                f"EVERTURN_CHAT_PORT and EVERTURN_MEMORY_PORT are both {self.chat_port}: change one of them"
            )
        return self


def load_settings() -> Settings:
    """Read the settings of this process.

    Raises SettingError with one line that names each wrong setting and says what it must be. Values are not repeated
    where they could be keys.
    """
    try:
        return Settings()
    except ValidationError as error:
        raise SettingError("; ".join(_sentence(fault) for fault in error.errors(include_url=False))) from None
    except (OSError, UnicodeDecodeError) as error:
        raise SettingError(
            f"the file .env cannot be read ({type(error).__name__}): make it a readable UTF-8 file"
        ) from None


def _is_http_url(value: str) -> bool:
    try:
        TypeAdapter(HttpUrl).validate_python(value)
    except ValidationError:
        return False
    return True


def _sentence(fault: object) -> str:
    assert isinstance(fault, dict)
    message = str(fault["msg"]).removeprefix("Value error, ")
    if not fault["loc"]:
        return message
    name = str(fault["loc"][0])
    field = Settings.model_fields.get(name)
    shown = name if name.isupper() else f"EVERTURN_{name.upper()}"
    secret = field is not None and "SecretStr" in str(field.annotation)
    value = "" if secret else f" (it is {str(fault['input'])[:60]!r})"
    return f"{shown}: {message[:1].lower()}{message[1:]}{value}"

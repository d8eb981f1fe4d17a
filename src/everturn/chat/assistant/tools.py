"""The tools of the assistant. Wrong arguments are answered, not raised: the model reads the answer and tries again."""

import asyncio
import logging
from collections.abc import Callable
from datetime import UTC, datetime, tzinfo
from typing import TYPE_CHECKING, Any, Literal
from zoneinfo import ZoneInfo

from pydantic import BaseModel, Field, ValidationError
from pydantic_core import from_json, to_json, to_jsonable_python

from everturn.contracts.fields import without_lone_surrogates
from everturn.dapr.client import SidecarClient
from everturn.errors import EverturnError, TerminalError

if TYPE_CHECKING:
    from agents import FunctionTool, Tool
    from agents.tool_context import ToolContext

log = logging.getLogger(__name__)

# The first pause between attempts of a tool, in seconds; each next one is twice as long.
_FIRST_PAUSE_S = 0.1
# What the model reads of a call that may have had its effect, and that is not to be made again.
OUTCOME_UNKNOWN = "error: outcome unknown: {name} was called, and a crash came before its answer; do not call it again"


def tool(
    *,
    retries: int = 0,
    timeout_s: float | None = None,
    idempotency: Literal["key", "once"] = "key",
    needs_approval: bool | Callable[..., Any] = False,
) -> "Callable[[Callable[..., Any]], FunctionTool]":
    """Make a function a tool of the assistant, by its signature and docstring, and say how it may be repeated.

    An attempt may take `timeout_s` seconds; one that raises is followed by `retries` more (not if it raises
    TerminalError), then the model reads an error: the message of one of ours, of others only the type. A call whose
    answer a crash lost is made again with the same `ctx.idempotency_key` (`key`), or the model reads that its outcome
    is unknown (`once`). A function that wants the key takes a `ToolContext` first. `needs_approval`: whether a person
    decides about each call, or the SDK's function that says so.
    """
    from agents import function_tool  # noqa: PLC0415 - imported late, see models.providers

    def made(function: Callable[..., Any]) -> "FunctionTool":
        found = function_tool(function, failure_error_function=None, needs_approval=needs_approval)
        inner = found.on_invoke_tool

        async def invoke(context: Any, arguments: str) -> Any:
            for attempt in range(1, retries + 2):
                context.attempts = attempt
                try:
                    async with asyncio.timeout(timeout_s):
                        return await inner(context, arguments)
                except Exception as error:  # noqa: BLE001 - whatever a tool raises, the model reads that it failed
                    answer = failed(found.name, error, attempt)
                    if isinstance(error, TerminalError):
                        break
                if attempt <= retries:
                    await asyncio.sleep(_FIRST_PAUSE_S * 2 ** (attempt - 1))
                    context.check()
            return answer

        found.on_invoke_tool = invoke
        found.is_called_once = idempotency == "once"  # type: ignore[attr-defined]
        return found

    return made


def failed(name: str, error: BaseException, attempt: int = 1) -> str:
    """What the model reads of a tool whose attempt raised `error`, which is logged."""
    reason = error.message if isinstance(error, EverturnError) else type(error).__name__
    log.warning("tool_attempt_failed", extra={"tool": name, "attempt": attempt, "reason": reason})
    return f"error: {name} failed ({reason})"


def kept_answer(name: str, answer: Any) -> Any:
    """What a tool answers as JSON: it is read back as what it is at once. An error for the model if it cannot be kept,
    since the tool has had its effect, and is not to be called again for that.
    """
    try:
        return from_json(to_json(_readable(to_jsonable_python(answer, fallback=str)), inf_nan_mode="null"))
    except Exception as error:  # noqa: BLE001 - whatever an object of the tool raises
        log.warning("tool_answer_lost", extra={"tool": name, "error_type": type(error).__name__})
        return f"error: {name} was called, but its answer cannot be written as JSON; do not call it again"


def _readable(value: Any) -> Any:
    """`value` without what stores refuse: lone surrogates, NUL."""
    if isinstance(value, str):
        return without_lone_surrogates(value).replace("\x00", "\ufffd")
    if isinstance(value, dict):
        return {_readable(key): _readable(item) for key, item in value.items()}
    return [_readable(item) for item in value] if isinstance(value, list) else value


async def call_app(
    context: "ToolContext[Any]", app_id: str, path: str, arguments: Any = None, *, verb: str = "POST"
) -> str:
    """Call a method of another Dapr app for a tool, by service invocation; the text that it answers.

    `arguments` are sent as JSON, with the call's key as `Idempotency-Key`. Raises TransientError if the app cannot be
    reached or has a passing fault, TerminalError if it refuses.
    """
    dapr: SidecarClient | None = context.context.dapr
    if dapr is None:
        raise TerminalError("this assistant runs without a sidecar")
    headers = {"idempotency-key": context.idempotency_key}  # type: ignore[attr-defined] # set by paid_calls
    body = b""
    if arguments is not None:
        headers["content-type"], body = "application/json", to_json(arguments)
    response = await dapr.invoke(app_id, verb, path, body, headers)
    return response.body.decode("utf-8", "replace")


def is_called_once(tool: "FunctionTool") -> bool:
    """Whether a call whose answer a crash lost is not to be made again."""
    return bool(getattr(tool, "is_called_once", False))


class TimeQuestion(BaseModel):
    """Arguments of `get_current_time`."""

    timezone: str | None = Field(None, max_length=64)  # twice the longest name that IANA has


def built_in_tools(now: Callable[[], datetime]) -> "list[Tool]":
    """All tools of the built-in assistant: a new one is a function here and an entry in this list."""
    return [current_time_tool(now)]


def current_time_tool(now: Callable[[], datetime]) -> "FunctionTool":
    """The tool `get_current_time`, with its time from `now`."""
    from agents import FunctionTool  # noqa: PLC0415 - imported late, see models.providers

    async def invoke(_context: Any, arguments: str) -> str:
        return current_time(arguments, now())

    zone = {"type": "string", "description": "IANA time zone such as Asia/Karachi. Without it the time is in UTC."}
    return FunctionTool(
        name="get_current_time",
        description="The current date and time, in ISO 8601.",
        params_json_schema={"type": "object", "properties": {"timezone": zone}, "required": []},
        on_invoke_tool=invoke,
        strict_json_schema=False,  # strict mode has no optional arguments, and not every endpoint knows it
    )


def current_time(arguments: str, now: datetime) -> str:
    """`now` in ISO 8601 to the second, in the time zone that `arguments` (JSON) ask for.

    If they cannot be used, a sentence for the model that begins with `error:`.
    """
    try:
        question = TimeQuestion.model_validate_json(arguments.strip() or "{}")
    except ValidationError:
        return 'error: the arguments must be a JSON object such as {} or {"timezone": "Asia/Karachi"}'
    zone = _zone(question.timezone)
    if zone is None:
        return "error: there is no time zone of that name; use an IANA name such as Asia/Karachi, or none for UTC"
    return now.astimezone(zone).isoformat(timespec="seconds").replace("+00:00", "Z")


def _zone(name: str | None) -> tzinfo | None:
    if not name or name.upper() in ("UTC", "Z"):
        return UTC
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):  # unknown; no name but a path; a folder of the package tzdata
        return None

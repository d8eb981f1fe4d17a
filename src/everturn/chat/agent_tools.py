"""The tools of the assistant. Wrong arguments are answered, not raised: the model reads the answer and tries again."""

from collections.abc import Callable
from datetime import UTC, datetime, tzinfo
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from pydantic import BaseModel, Field, ValidationError

if TYPE_CHECKING:
    from agents import FunctionTool

# The longest name of the IANA time zone database is well below this.
_MAX_ZONE_CHARS = 64


class TimeQuestion(BaseModel):
    """Arguments of `get_current_time`."""

    timezone: str | None = Field(None, max_length=_MAX_ZONE_CHARS)


def current_time_tool(now: Callable[[], datetime]) -> "FunctionTool":
    """The tool `get_current_time`, with its time from `now`."""
    from agents import FunctionTool  # noqa: PLC0415 - imported late, see models.sdk

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

    Where they cannot be used, a sentence for the model that begins with `error:`.
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

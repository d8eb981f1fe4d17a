"""Logs are events: a stable name and ids. JSON lines, or readable ones if the output is a terminal.

What people and models say never gets into a log: our own records carry an event name and ids; of a library's record
only its constant part is written, never its arguments; of an exception its type and place, and its message only if
it is one of ours, which are safe by contract (`everturn.errors`).
"""

import json as jsonlib
import logging
import os
import sys
import traceback
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

from everturn.contracts.fields import to_wire
from everturn.errors import EverturnError

# What every record has (https://docs.python.org/3/library/logging.html#logrecord-attributes); the rest came as `extra`.
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "color_message"}
_LIBRARIES = ("uvicorn", "uvicorn.error", "uvicorn.access", "httpx2", "httpcore2", "openai", "agents", "dapr")
# The first line of their records is constant; what they add to it is not.
_CONSTANT_FIRST_LINE = frozenset({"asyncio", "uvicorn.error"})
_MAX_VALUE_CHARS = 300
_MAX_FRAMES = 12
_COLOURS = {"DEBUG": "2", "INFO": "32", "WARNING": "33", "ERROR": "31", "CRITICAL": "31;1"}

Fields = dict[str, Any]


def configure(json: bool | None = None, *, stream: TextIO | None = None) -> None:
    """Send every log of this process to `stream` (stderr unless given) in one form, once an event.

    `json`: JSON lines or readable ones; None decides by whether `stream` is a terminal. Libraries are heard from
    WARNING on; uvicorn's access log is off. May be called again: the last call counts.
    """
    target = sys.stderr if stream is None else stream
    handler = logging.StreamHandler(target)
    handler.addFilter(_is_wanted)
    as_json = not target.isatty() if json is None else json
    handler.setFormatter(
        _JsonLines() if as_json else _Readable(colour="NO_COLOR" not in os.environ and target.isatty())
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("everturn").setLevel(logging.INFO)
    for name in _LIBRARIES:
        library = logging.getLogger(name)
        library.handlers.clear()
        library.propagate = True
        library.setLevel(logging.WARNING)
    logging.getLogger("uvicorn.access").disabled = True
    logging.getLogger("dotenv").setLevel(logging.ERROR)  # a wrong line of .env is ours to say: `setting_warnings`


def set_level(level: str) -> None:
    """Log our own events from `level` on: `debug`, `info`, `warn`, `error` or `fatal`. Libraries stay as they are."""
    logging.getLogger("everturn").setLevel(level.upper())


def _is_ours(record: logging.LogRecord) -> bool:
    return record.name == "everturn" or record.name.startswith("everturn.")


def _is_wanted(record: logging.LogRecord) -> bool:
    # A library may set its own logger's level; it is still heard from WARNING on only.
    return record.levelno >= logging.WARNING or _is_ours(record)


class _JsonLines(logging.Formatter):
    """`{"ts", "level", "event", "logger", ids…, "error"?, "at"?}` on one line."""

    def format(self, record: logging.LogRecord) -> str:
        fields = {
            "ts": to_wire(datetime.fromtimestamp(record.created, UTC)),
            "level": record.levelname.lower(),
            "event": _event(record),
            "logger": record.name,
        }
        extras = _fields(record) | _error(record)
        # Ours first, and an extra of the same name does not replace them.
        return jsonlib.dumps(fields | {k: v for k, v in extras.items() if k not in fields}, ensure_ascii=True)


class _Readable(logging.Formatter):
    """`12:00:00 WARNING delivery_failed topic=conversations attempt=2`, for a terminal."""

    def __init__(self, *, colour: bool) -> None:
        super().__init__()
        self._colour = colour

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created).astimezone().strftime("%H:%M:%S")
        level = f"{record.levelname:<7}"
        if self._colour:
            level = f"\x1b[{_COLOURS.get(record.levelname, '0')}m{level}\x1b[0m"
        fields = _fields(record) | _error(record)
        pairs = (f"{name}={_quoted(value)}" for name, value in fields.items())
        return " ".join((time, level, _quoted(_event(record)), *pairs))


def _event(record: logging.LogRecord) -> str:
    text = str(record.msg)
    if _is_ours(record) or record.args:
        return text  # without its arguments: they may be what someone said
    if record.name in _CONSTANT_FIRST_LINE:
        return text.partition("\n")[0][:_MAX_VALUE_CHARS]
    return f"library log at {Path(record.pathname).name}:{record.lineno}"


def _fields(record: logging.LogRecord) -> Fields:
    if not _is_ours(record):
        return {}
    return {name: _shown(value) for name, value in vars(record).items() if name not in _STANDARD}


def _error(record: logging.LogRecord) -> Fields:
    error = record.exc_info[1] if record.exc_info else None
    if error is None:
        return {}
    frames = traceback.extract_tb(error.__traceback__)[-_MAX_FRAMES:]
    places = [f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in frames]
    return {"error": _shown(error), "at": places}


def _shown(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, EverturnError):
        return f"{type(value).__name__}({value.kind}): {value.message}"[:_MAX_VALUE_CHARS]
    if isinstance(value, BaseException):
        return type(value).__name__
    if isinstance(value, list | tuple | set | frozenset):
        return [_shown(item) for item in value]
    return str(value)[:_MAX_VALUE_CHARS]


def _quoted(value: Any) -> str:
    """`value` as one word of printable characters: a terminal obeys some of the others."""
    if not isinstance(value, str):
        return jsonlib.dumps(value, ensure_ascii=True)
    is_plain = value.isprintable() and value and not any(char in value for char in '"=')
    return value if is_plain else jsonlib.dumps(value, ensure_ascii=True)

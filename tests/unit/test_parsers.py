"""Every parser of what users and programs send does work in proportion to what it reads, whatever that is.

Counted are the lines that run and the characters that are handed on (`work_of`), at a length and at twice of it. The
steps of patterns are counted by `test_patterns`; the demo's English has a test of its own.
"""

import asyncio
import contextlib
import json
from collections.abc import Callable, Mapping

import pytest
from pydantic import BaseModel
from starlette.datastructures import Headers

from everturn.chat.agui import AguiRun
from everturn.chat.live.events import position_of
from everturn.chat.openai_api import ChatCompletionRequest, ResponseRequest
from everturn.contracts.chat import ApprovalDecision, Message
from everturn.contracts.fields import (
    checked_text,
    id_fault,
    key_part,
    retry_after_s,
    utc_now,
    without_lone_surrogates,
)
from everturn.contracts.memory import UserMemory
from everturn.dapr.origins import AllowedPages
from everturn.errors import EverturnError
from everturn.memory.subscriptions import read_event
from everturn.models.texts import excerpt, fence, unfence
from everturn.web.callers import bearer_of
from everturn.web.problems import Problem
from everturn.web.requests import EncodedPath, encoded_id, header_text, preferences_of
from tests.unit.work import work_of

_PARTS = (
    *("a", " ", "\u3164", "\u200b", "ü", "😀", "\x00", ",", ";", "=", "/", "%2F", "%", "..", "|", '"', "\\", "[", "{"),
    *("wait=1,", "respond-async,", "<data>\n", "</data>", "*.", "1", "1.", "-", ":", "\u2028", "[],", '{"":0},'),
)
_CHARS = 4_000


def _origin(text: str) -> object:
    pages = AllowedPages(("*.example.com",), ("http://localhost:3000",))
    return pages.refusal("GET", {"host": text, "origin": f"http://{text}"}), pages.refusal("GET", {"host": text})


def _path(text: str) -> object:
    async def app(scope: object, receive: object, send: object) -> None: ...

    scope = {"type": "http", "path": "", "raw_path": f"/turns/{text}".encode()}
    return asyncio.run(EncodedPath(app)(scope, None, None))  # type: ignore[arg-type]


def _event(text: str) -> object:
    known = ("user_id", "session_id", "user_message", "assistant_reply", "turn_id", "accepted_at", "occurred_at")
    data = {"event_type": "ConversationUpdated", "sequence": text, **dict.fromkeys(known, text)}
    return read_event(json.dumps({"id": text, "time": text, "data": data}).encode(), utc_now())


def _event_of(text: str) -> object:
    return read_event(text.encode(), utc_now())


def _bodies(text: str) -> object:
    """Each shape with the text as every member."""
    shapes: list[type[BaseModel]] = [Message, UserMemory, ApprovalDecision]
    shapes += [ChatCompletionRequest, ResponseRequest, AguiRun]
    for shape in shapes:
        with contextlib.suppress(ValueError):
            shape.model_validate({field.alias or name: text for name, field in shape.model_fields.items()})
    messages = [{"role": "user", "content": part} for part in text]
    for given in ({"messages": messages}, {"metadata": {"session_id": text}, "messages": messages[:1]}):
        with contextlib.suppress(ValueError):
            ChatCompletionRequest.model_validate(given)
    return None


PARSERS: Mapping[str, Callable[[str], object]] = {
    "id": id_fault,
    "text": checked_text,
    "key": key_part,
    "surrogates": without_lone_surrogates,
    "Retry-After": retry_after_s,
    "header": header_text,
    "Prefer": lambda text: asyncio.run(preferences_of([text, *text[:100]])),
    "Authorization": lambda text: bearer_of(Headers({"authorization": f"Bearer {text}"})),
    "Host and Origin": _origin,
    "path": _path,
    "link": encoded_id,
    "Last-Event-ID": position_of,
    "event": _event,
    "CloudEvent": _event_of,
    "bodies": _bodies,
    "prompt": lambda text: (unfence(fence({"text": text})), unfence(text), excerpt(text, len(text) // 2)),
}


def _work(parse: Callable[[str], object], text: str) -> int:
    def tried() -> None:
        with contextlib.suppress(ValueError, Problem, EverturnError):
            parse(text)

    return work_of(tried)


@pytest.mark.parametrize("name", PARSERS)
def test_twice_the_text_is_at_most_twice_the_work(name: str) -> None:
    grown = [
        part
        for part in _PARTS
        if _work(PARSERS[name], (part * _CHARS)[: 2 * _CHARS])
        > 2.2 * _work(PARSERS[name], (part * _CHARS)[:_CHARS]) + 500
    ]

    assert grown == []


def test_work_that_grows_with_the_square_is_found() -> None:
    def handed(_: str) -> None: ...

    def planted(text: str) -> None:
        for start in range(0, len(text), 40):
            handed(text[start:])

    def work(chars: int) -> int:
        return work_of(lambda: planted("a" * chars), ours=__file__)

    assert work(2 * _CHARS) > 3 * work(_CHARS)

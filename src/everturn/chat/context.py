"""What a reply is made from: the memory service's part, and what only this service knows yet."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar
from urllib.parse import quote, urlencode

from everturn.chat.records import Context, PastEntry, TurnRecord, Window
from everturn.chat.sessions import Place, Session
from everturn.chat.window import CHARS_PER_TOKEN
from everturn.contracts.events import MEMORY_APP_ID
from everturn.contracts.memory import UserMemory
from everturn.errors import EverturnError, TransientError
from everturn.settings import Settings
from everturn.sidecar.client import DaprClient, status_error

T = TypeVar("T")


async def bring_context(
    dapr: DaprClient, settings: Settings, record: TurnRecord
) -> tuple[Context, EverturnError | None]:
    """Fetch side by side what the record's context lacks; what there is then, and the error of what there is not.

    Of two errors the transient one is given, since then trying again helps.
    """
    had = record.context or Context()
    memory_service = _MemoryService(dapr, settings)
    memory, history = await asyncio.gather(
        _either(had.memory, lambda: memory_service.memory(record.user_id)),
        _either(had.history, lambda: memory_service.window(record.session_id, record.user_id)),
    )
    errors = [part for part in (memory, history) if isinstance(part, EverturnError)]
    errors.sort(key=lambda error: not isinstance(error, TransientError))
    context = Context(
        memory=None if isinstance(memory, EverturnError) else memory,
        history=None if isinstance(history, EverturnError) else history,
    )
    return context, errors[0] if errors else None


def unstored(session: Session, window: Window) -> list[Place]:
    """The completed turns that belong into `window` and are not in it: their events are still on the way.

    What is older than a truncated window is not asked for: it could not be told from what the window left out, and
    the prompt has no room for it.
    """
    known = {entry.turn_id for entry in window.history}
    oldest = window.history[0].sequence or 0 if window.truncated and window.history else 0
    return [place for place in session.recent if place.turn_id not in known and place.sequence >= oldest]


def stored_up_to(session: Session, missing: Sequence[Place]) -> int:
    """The sequence up to which no completed turn is `missing`; 0 where there is none."""
    first_missing = min((place.sequence for place in missing), default=session.next_sequence)
    return max((place.sequence for place in session.recent if place.sequence < first_missing), default=0)


def with_recent(history: Sequence[PastEntry], recent: Sequence[TurnRecord]) -> list[PastEntry]:
    """`history` and the turns of `recent`, in the order of `sequence`."""
    missing = [entry for record in recent for entry in entries_of(record)]
    return sorted([*history, *missing], key=lambda entry: entry.sequence or 0) if missing else list(history)


def entries_of(record: TurnRecord) -> list[PastEntry]:
    """The two entries that a completed turn adds to its conversation."""
    if record.reply is None:
        return []
    place = {"turn_id": record.turn_id, "sequence": record.sequence}
    return [
        PastEntry(role="user", content=record.text, timestamp=record.accepted_at, **place),
        PastEntry(role="assistant", content=record.reply.text, timestamp=record.reply.at, **place),
    ]


async def _either(had: T | None, fetch: Callable[[], Awaitable[T]]) -> T | EverturnError:
    if had is not None:
        return had
    try:
        return await fetch()
    except EverturnError as error:
        return error


class _MemoryService:
    """The memory service, by service invocation."""

    def __init__(self, dapr: DaprClient, settings: Settings) -> None:
        self._dapr = dapr
        self._timeout_s = settings.fetch_timeout_s
        self._window_chars = settings.history_tokens * CHARS_PER_TOKEN

    async def memory(self, user_id: str) -> UserMemory:
        return UserMemory.model_validate_json(await self._get(f"memories/{quote(user_id, safe='')}"))

    async def window(self, session_id: str, user_id: str) -> Window:
        """Of this user's conversation alone: events that did not come from here can have given it to another."""
        query = urlencode({"window_chars": self._window_chars, "user_id": user_id})
        return Window.model_validate_json(await self._get(f"conversations/{quote(session_id, safe='')}?{query}"))

    async def _get(self, path: str) -> bytes:
        try:
            async with asyncio.timeout(self._timeout_s):
                response = await self._dapr.invoke(MEMORY_APP_ID, "GET", path)
        except TimeoutError:
            raise TransientError(
                f"the memory service gave no answer within {self._timeout_s:g} s", kind="timeout"
            ) from None
        if response.status >= 300:
            raise status_error(response.status, f"the memory service answered {response.status}", response.headers)
        return response.body

"""What a reply is made from: the memory service's part, what only this service knows yet, and the window of it."""

import asyncio
from collections.abc import Sequence
from urllib.parse import quote, urlencode

import msgspec

from everturn import tracing
from everturn.chat.facts import Accepted, Context, PastEntry, Reply, TurnRun, Window
from everturn.chat.journal import Journal
from everturn.chat.session import QueuedTurn, Session
from everturn.contracts.events import MEMORY_APP_ID
from everturn.contracts.memory import UserMemory, default_memory
from everturn.dapr.client import SidecarClient, status_error
from everturn.errors import EverturnError, TransientError
from everturn.models.texts import excerpt
from everturn.settings import Settings

# contracts.md, "History window": a fixed estimate, since every endpoint counts tokens in its own way.
CHARS_PER_TOKEN = 4
# Each costs the agent a tenth of a millisecond, however short it is.
MAX_ENTRIES = 1_000


class ContextSource:
    """Gathers contexts from the memory service, by service invocation, and the prompt's history from all there is."""

    def __init__(self, dapr: SidecarClient, journal: Journal, settings: Settings) -> None:
        self._dapr = dapr
        self._journal = journal
        self._timeout_s = settings.fetch_timeout_s
        self._history_tokens = settings.history_tokens
        self.attempts = settings.fetch_attempts

    async def gather(self, run: TurnRun, session: Session) -> tuple[Context, EverturnError | None]:
        """What can be had now, and the error of what cannot. Of two the transient one: trying again helps then.

        `session`: as it is while `run` is its head.
        """
        accepted = run.accepted
        # Of this user's conversation alone: events that did not come from here can have given it to another.
        query = urlencode({"window_chars": self._history_tokens * CHARS_PER_TOKEN, "user_id": accepted.user_id})
        memory, history = await asyncio.gather(
            self._get(f"memories/{quote(accepted.user_id, safe='')}", dict[str, str]),
            self._get(f"conversations/{quote(accepted.session_id, safe='')}?{query}", Window),
        )
        errors = [part for part in (memory, history) if isinstance(part, EverturnError)]
        errors.sort(key=lambda error: not isinstance(error, TransientError))
        context = Context(
            memory=memory if isinstance(memory, dict) else None,
            history=history if isinstance(history, Window) else None,
        )
        return with_recent(context, session), errors[0] if errors else None

    async def memory(self, user_id: str) -> dict[str, str]:
        """What the memory service has of a user. Raises EverturnError if it cannot be had now."""
        found = await self._get(f"memories/{quote(user_id, safe='')}", dict[str, str])
        if isinstance(found, EverturnError):
            raise found
        assert isinstance(found, dict)
        return found

    async def history(self, context: Context, given: Sequence[PastEntry] = ()) -> list[PastEntry]:
        """The prompt's history. `given`: as in `prompt_history`."""
        return prompt_history(context, await recent_entries(self._journal, context), given, self._history_tokens)

    async def _get(self, path: str, kind: type) -> object:
        """The memory service's answer as `kind`, or the error."""
        try:
            async with asyncio.timeout(self._timeout_s):
                response = await self._dapr.invoke(MEMORY_APP_ID, "GET", path, headers=tracing.headers())
            if response.status >= 300:
                sentence = f"the memory service answered {response.status}"
                return status_error(response.status, sentence, response.headers)
            return msgspec.json.decode(response.body, type=kind)
        except TimeoutError:
            sentence = f"the memory service gave no answer within {self._timeout_s:g} s"
            return TransientError(sentence, kind="timeout")
        except msgspec.MsgspecError:
            return TransientError("the memory service's answer cannot be read", kind="bad_answer")
        except EverturnError as error:
            return error


async def recent_entries(journal: Journal, context: Context) -> list[PastEntry]:
    """The entries of the turns that the memory service did not have yet."""
    places = context.recent or []
    turns = await journal.completed([(turn_id, number) for turn_id, number, _ in places])
    sequences = {turn_id: sequence for turn_id, _, sequence in places}
    return [entry for accepted, reply, id_ in turns for entry in entries_of(accepted, reply, id_, sequences[id_])]


def memory_of(context: Context, user_id: str) -> UserMemory:
    """The user's memory; that of a new user if it was out of reach."""
    return UserMemory.model_validate(context.memory) if context.memory else default_memory(user_id)


def with_recent(context: Context, session: Session) -> Context:
    """`context` with the turns of `session` that its window lacks."""
    missing = unstored(session, context.history or Window([]))
    recent = [(turn.turn_id, turn.run or 0, turn.sequence) for turn in missing]
    return msgspec.structs.replace(context, recent=recent, stored_up_to=stored_up_to(session, missing))


def prompt_history(
    context: Context, recent: Sequence[PastEntry], given: Sequence[PastEntry], tokens: int
) -> list[PastEntry]:
    """The window and what is newer, in their order, as much as fits into `tokens`.

    `given` is the history that a client has sent in its place; instructions in it are kept whatever fits.
    """
    entries = context.history.history if context.history else []
    if recent:
        entries = sorted([*entries, *recent], key=lambda entry: entry.sequence or 0)
    if given:
        entries = [entry for entry in given if entry.role != "system"]
    rules = [entry for entry in given if entry.role == "system"]
    return [*rules, *fit(entries, tokens)]


def unstored(session: Session, window: Window) -> list[QueuedTurn]:
    """The completed turns that belong into `window` and are not in it: their events are still on the way.

    What is older than a truncated window is not asked for: it looks like what the window left out, and the prompt has
    no room for it.
    """
    known = {entry.turn_id for entry in window.history}
    oldest = window.history[0].sequence or 0 if window.truncated and window.history else 0
    return [turn for turn in session.recent if turn.turn_id not in known and turn.sequence >= oldest]


def stored_up_to(session: Session, missing: Sequence[QueuedTurn]) -> int:
    """The sequence up to which no completed turn is `missing`; 0 if there is none."""
    first_missing = min((turn.sequence for turn in missing), default=session.next_sequence)
    return max((turn.sequence for turn in session.recent if turn.sequence < first_missing), default=0)


def entries_of(accepted: Accepted, reply: Reply, turn_id: str, sequence: int) -> list[PastEntry]:
    """The entries that a completed turn adds to its conversation: the messages that it answers, and the reply."""
    return [
        PastEntry("user", accepted.text, accepted.at, turn_id, sequence),
        *(PastEntry("user", one.user_message, one.occurred_at, turn_id, sequence) for one in reply.merged),
        PastEntry("assistant", reply.text, reply.at, turn_id, sequence),
    ]


def fit(entries: Sequence[PastEntry], tokens: int) -> list[PastEntry]:
    """The last turns of `entries` that fit into `tokens`, oldest first, each whole; of MAX_ENTRIES entries at most.

    The last turn is always in it; if it alone is larger, its longest entries are cut in the middle, with a mark.
    """
    budget = tokens * CHARS_PER_TOKEN
    turns = _turns(entries)
    if not turns:
        return []
    kept = [_cut_to(turns[-1][-MAX_ENTRIES:], budget)]
    budget, room = budget - _chars(kept[0]), MAX_ENTRIES - len(kept[0])
    for turn in reversed(turns[:-1]):
        budget, room = budget - _chars(turn), room - len(turn)
        if budget < 0 or room < 0:
            break
        kept.append(turn)
    return [entry for turn in reversed(kept) for entry in turn]


def _turns(entries: Sequence[PastEntry]) -> list[list[PastEntry]]:
    """`entries` in turns: the first of a user's entries begins one."""
    turns: list[list[PastEntry]] = []
    for entry in entries:
        if not turns or (entry.role == "user" and turns[-1][-1].role != "user"):
            turns.append([])
        turns[-1].append(entry)
    return turns


def _chars(entries: Sequence[PastEntry]) -> int:
    return sum(len(entry.content) for entry in entries)


def _cut_to(turn: list[PastEntry], budget: int) -> list[PastEntry]:
    """`turn` with at most `budget` characters: short entries stay whole, the longer ones share what is left."""
    room, shares = budget, {}
    by_length = sorted(range(len(turn)), key=lambda place: len(turn[place].content))
    for done, place in enumerate(by_length):
        shares[place] = min(len(turn[place].content), room // (len(turn) - done))
        room -= shares[place]
    return [
        msgspec.structs.replace(entry, content=excerpt(entry.content, shares[place]))
        for place, entry in enumerate(turn)
    ]

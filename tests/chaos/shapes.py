"""Every shape of a turn, as what a client does. Each is written to be gone through again after a crash.

A shape ends when all that it set in motion has come to rest, so that the next crash is its own.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from tests.chaos.client import ENDED, Pauses
from tests.chaos.journal import Exchange, names_in
from tests.chaos.life import Life
from tests.chaos.paid import PAID
from tests.chaos.simulated_loop import pass_time


@dataclass(frozen=True, slots=True)
class Talk:
    """One go of a shape in a session. Its messages are `name` with a letter, which is their key as well."""

    life: Life
    session: str
    user: str
    name: str

    async def say(self, letter: str, words: str = "", again: str = "", overlap: str = "") -> Exchange:
        """Send a message and wait for what comes of it."""
        what = f"say{again} {self.name}{letter}"
        for _ in range(100):
            exchange = await self._post(what, letter, words, None, overlap)
            if exchange.status != 202:
                return exchange
            await self.life.client.ended(exchange.answer["turn_id"])
            what += "+"
        raise AssertionError("a turn that has ended is answered with 202")

    async def accept(self, letter: str, words: str = "", overlap: str = "") -> str:
        """Send a message without waiting for its reply; the turn's id, empty if it is refused."""
        exchange = await self._post(f"accept {self.name}{letter}", letter, words, "respond-async", overlap)
        return str((exchange.answer or {}).get("turn_id", ""))

    async def _post(self, what: str, letter: str, words: str, prefer: str | None, overlap: str) -> Exchange:
        key = self.name + letter
        metadata = {"session_id": self.session, **({"overlap": overlap} if overlap else {})}
        body = {"user_id": self.user, "text": f"{key} {words}", "metadata": metadata}
        how = {} if prefer is None else {"prefer": prefer}
        return await self.life.client.do(what, "POST", "/chat/", body, key=key, **how)

    async def steer(self, letter: str, turn_id: str, how: str) -> Exchange:
        return await self.life.client.do(f"{how} {self.name}{letter}", "POST", f"/turns/{turn_id}/{how}")

    async def ended(self, *turn_ids: str) -> list[dict[str, Any]]:
        return [await self.life.client.ended(turn_id) for turn_id in turn_ids]

    async def asking(self, turn_id: str) -> dict[str, Any]:
        """The turn once it waits for a person, or has ended."""
        for pause in Pauses(self.life.client):
            turn = await self.life.client.look(turn_id)
            if turn["status"] in ("waiting", *ENDED):
                return turn
            await pause()
        raise AssertionError

    async def approve(self, letter: str, turn: dict[str, Any]) -> None:
        """Approve what the turn asks."""
        for asked in turn.get("approvals", ()):
            path = f"/turns/{turn['turn_id']}/approvals/{asked['call_id']}"
            await self.life.client.do(f"approve {self.name}{letter}", "POST", path, {"decision": "approve"})

    async def once(self, what: str, act: Callable[[], Awaitable[object]]) -> None:
        """Do `act` unless the client has heard that it is done."""
        client, what = self.life.client, f"{what} {self.name}"
        if what not in client.journal.done:
            await act()
            client.journal.done[what] = Exchange(self.life.number, client.journal.tick(), "", what)

    async def away(self, what: str, away: bool) -> None:
        async def act() -> None:
            self.life.around.faults.set_away("broker" if what == "broker" else "memory", away)

        await self.once(f"{what} {'away' if away else 'back'}", act)

    async def asked(self, letter: str) -> None:
        """Return when the model has been asked for the reply, or the turn can have ended without."""
        name = self.name + letter
        for pause in Pauses(self.life.client):
            if any(call.name == name or name in call.merged for call in self.life.journal.calls):
                return
            await pause()

    async def stored(self, *letters: str) -> None:
        """Return when these messages are in the history and in the user's summary."""
        names = {self.name + letter for letter in letters}
        client = self.life.client
        for pause in Pauses(client):
            history = {content.split()[0] for content in await client.history(self.session)}
            if names <= history and names <= set(names_in(await client.summary(self.user))):
                return
            await pause()


async def plain(talk: Talk) -> None:
    await talk.say("a")
    await talk.stored("a")


async def degraded(talk: Talk) -> None:
    await talk.away("memory", True)
    await talk.say("a")
    await talk.away("memory", False)
    await talk.stored("a")


async def retried(talk: Talk) -> None:
    await talk.say("a", "500 429")
    await talk.stored("a")


async def failed(talk: Talk) -> None:
    await talk.say("a", "401")
    await talk.say("a", "401", again=" again")


async def rerun(talk: Talk) -> None:
    failure = await talk.say("a", "401")
    turn_id = failure.answer["turn_id"]
    talk.life.journal.forgiven.add(talk.name + "a")
    await talk.steer("a", turn_id, "rerun")
    await talk.ended(turn_id)
    await talk.say("a", "401", again=" again")
    await talk.stored("a")


async def cancelled(talk: Talk) -> None:
    first = await talk.accept("a", "slow=40")
    await talk.asked("a")
    await talk.steer("a", first, "cancel")
    await talk.ended(first)
    await talk.say("b")
    await talk.stored("b")


async def cancelled_in_queue(talk: Talk) -> None:
    turn_ids = [await talk.accept("a", "slow=3"), await talk.accept("b"), await talk.accept("c")]
    await talk.steer("b", turn_ids[1], "cancel")
    await talk.ended(*turn_ids)
    await talk.stored("a", "c")


async def given_up(talk: Talk) -> None:
    """Two are cancelled by a client that does not care for the answer; who waits behind them only looks."""
    turn_ids = [await talk.accept("a", "slow=3"), await talk.accept("b", "slow=3"), await talk.accept("c")]
    for letter, turn_id in zip("ab", turn_ids, strict=False):
        what = f"cancel {letter}"
        await talk.once(f"{what} tried", _nothing)
        await talk.once(what, partial(talk.life.client.send, "POST", f"/turns/{turn_id}/cancel"))
    await talk.ended(*reversed(turn_ids))
    await talk.stored("c")


async def queued(talk: Talk) -> None:
    turn_ids = [await talk.accept("a", "slow=2"), await talk.accept("b"), await talk.accept("c")]
    await talk.ended(*reversed(turn_ids))
    await talk.stored("a", "b", "c")


async def deferred(talk: Talk) -> None:
    await talk.away("broker", True)
    await talk.say("a")
    await talk.say("b")
    await talk.away("broker", False)
    await talk.stored("a", "b")


async def paused(talk: Talk) -> None:
    first = await talk.accept("a", "slow=2")
    await talk.steer("a", first, "pause")
    await talk.steer("a", first, "resume")
    await talk.ended(first)
    await talk.stored("a")


async def paused_in_queue(talk: Talk) -> None:
    turn_ids = [await talk.accept("a", "slow=2"), await talk.accept("b"), await talk.accept("c")]
    await talk.steer("b", turn_ids[1], "pause")
    await talk.ended(turn_ids[0])
    await talk.steer("b", turn_ids[1], "resume")
    await talk.ended(*reversed(turn_ids))
    await talk.stored("a", "b", "c")


async def doubled(talk: Talk) -> None:
    await asyncio.gather(talk.say("a"), talk.say("a", again=" as well"))
    await talk.stored("a")


async def crowd(talk: Talk) -> None:
    """Sent side by side: any order will do."""
    turn_ids = await asyncio.gather(talk.accept("a", "slow=1"), talk.accept("b"), talk.accept("c"))
    await talk.ended(*turn_ids)
    await talk.stored("a", "b", "c")


async def purged(talk: Talk) -> None:
    await talk.say("a")
    await talk.stored("a")
    await talk.once("wait for the purge", lambda: pass_time(700))
    await talk.say("a", again=" after the purge")


async def introduced(talk: Talk) -> None:
    """A user of its own says who they are before the first message."""
    own = Talk(talk.life, f"{talk.name}-session", f"{talk.name}-user", talk.name)
    memory = {"name": "Jo", "preferred_style": "formal", "user_summary": "new here"}
    await talk.life.client.do(f"introduce {talk.name}", "POST", f"/memories/{own.user}/initialize", memory)
    await own.say("a")
    await own.stored("a")


async def strangers(talk: Talk) -> None:
    """Two users begin a session side by side: one of them has it."""
    session = f"{talk.name}-shared"
    ann = Talk(talk.life, session, f"{talk.name}-ann", talk.name)
    bob = Talk(talk.life, session, f"{talk.name}-bob", talk.name)
    turn_ids = await asyncio.gather(ann.accept("a"), bob.accept("b"))
    await talk.ended(*filter(None, turn_ids))
    for one, letter, turn_id in ((ann, "a", turn_ids[0]), (bob, "b", turn_ids[1])):
        if turn_id:
            await one.stored(letter)


async def paid(talk: Talk) -> None:
    """Model calls, two tools at once, a handoff, and a tool about which the client decides."""
    turn_id = await talk.accept("a", PAID)
    await talk.approve("a", await talk.asking(turn_id))
    await talk.ended(turn_id)
    await talk.stored("a")


async def _nothing() -> None: ...


Shape = Callable[[Talk], Awaitable[None]]
SHAPES: dict[str, Shape] = {
    shape.__name__: shape
    for shape in (
        plain,
        degraded,
        retried,
        failed,
        rerun,
        cancelled,
        cancelled_in_queue,
        given_up,
        queued,
        deferred,
        paused,
        paused_in_queue,
        doubled,
        crowd,
        purged,
        introduced,
        strangers,
    )
}
# With the assistant that has tools, so in worlds of their own.
PAID_SHAPES: dict[str, Shape] = {"paid": paid}

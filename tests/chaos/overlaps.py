"""Shapes of messages that come while a turn of their session has not ended, as `shapes` has others."""

import asyncio
from collections.abc import Sequence

from tests.chaos.paid import PAID, PASSED
from tests.chaos.shapes import Shape, Talk


async def refused(talk: Talk) -> None:
    """One that does not wait; after a crash it may find nobody."""
    first = await talk.accept("a", "slow=5")
    second = await talk.accept("b", overlap="reject")
    await _rest(talk, first, second)


async def refused_crowd(talk: Talk) -> None:
    """Side by side, so that one of them is answered, or more, one after the other."""
    sending = (talk.accept(letter, "slow=1", overlap="reject") for letter in "abc")
    await _rest(talk, *(await asyncio.gather(*sending)))


async def interrupted(talk: Talk) -> None:
    turn_ids = [await talk.accept("a", "slow=40"), await talk.accept("b", "slow=40")]
    await talk.asked("a")
    turn_ids.append(await talk.accept("c", overlap="interrupt"))
    turn_ids.append(await talk.accept("d"))
    await _rest(talk, *turn_ids)


async def interrupted_twice(talk: Talk) -> None:
    first = await talk.accept("a", "slow=40")
    others = [await talk.accept("b", "slow=40", overlap="interrupt"), await talk.accept("c", overlap="interrupt")]
    await _rest(talk, first, *others)


async def merged(talk: Talk) -> None:
    """Two are taken up before the second call of a model."""
    first = await talk.accept("a", "tool slow=2")
    others = [await talk.accept("b", overlap="merge"), await talk.accept("c", overlap="merge")]
    await _rest(talk, first, *others)


async def merged_in_retries(talk: Talk) -> None:
    """One after the other, by attempts that fail."""
    first = await talk.accept("a", "500 429 slow=1")
    await talk.asked("a")
    others = [await talk.accept("b", overlap="merge")]
    await talk.asked("b")
    others.append(await talk.accept("c", overlap="merge"))
    await _rest(talk, first, *others)


async def merged_and_failed(talk: Talk) -> None:
    first = await talk.accept("a", "tool slow=2 401")
    second = await talk.accept("b", overlap="merge")
    await _rest(talk, first, second)


async def merged_or_cancelled(talk: Talk) -> None:
    """The message, or the turn that may have taken it up, is cancelled, and those behind are answered."""
    first = await talk.accept("a", "tool slow=1")
    second = await talk.accept("b", overlap="merge")
    third = await talk.accept("c", overlap="merge")
    await talk.steer("b", second, "cancel")
    await talk.steer("a", first, "cancel")
    await _rest(talk, first, second, third, await talk.accept("d"))


async def merged_and_held(talk: Talk) -> None:
    """It is too late to cancel what was taken up."""
    first = await talk.accept("a", "tool slow=1")
    second = await talk.accept("b", overlap="merge")
    await talk.asked("b")
    await talk.steer("b", second, "cancel")
    await _rest(talk, first, second)


async def merged_and_interrupted(talk: Talk) -> None:
    first = await talk.accept("a", "tool slow=2")
    second = await talk.accept("b", overlap="merge")
    third = await talk.accept("c", overlap="interrupt")
    await _rest(talk, first, second, third)


async def passed(talk: Talk) -> None:
    """One that waits for a person comes back behind those that came meanwhile, of which one may still run."""
    first = await talk.accept("a", f"{PAID} {PASSED}")
    turn = await talk.asking(first)
    await talk.say("b")
    third = await talk.accept("c", "slow=1")
    await talk.approve("a", turn)
    await _rest(talk, first, third)
    await talk.stored("b")


async def passed_with_merged(talk: Talk) -> None:
    """It brings with it the message that it has taken up."""
    first = await talk.accept("a", f"{PAID} {PASSED}")
    second = await talk.accept("b", overlap="merge")
    turn = await talk.asking(first)
    third = await talk.accept("c")
    await talk.ended(third)
    await talk.approve("a", turn)
    await _rest(talk, first, second, third)


async def passed_and_cancelled(talk: Talk) -> None:
    first = await talk.accept("a", f"{PAID} {PASSED}")
    await talk.asking(first)
    await talk.say("b")
    await talk.steer("a", first, "cancel")
    await talk.ended(first)
    await talk.stored("b")


async def passed_and_interrupted(talk: Talk) -> None:
    """No message interrupts one that lets it pass; one that came back in time may be."""
    first = await talk.accept("a", f"{PAID} {PASSED}")
    turn = await talk.asking(first)
    await talk.approve("a", turn)
    await _rest(talk, first, await talk.accept("b", overlap="interrupt"))


async def _rest(talk: Talk, *turn_ids: str) -> None:
    """Return when these turns have ended, and those that were answered are stored."""
    ended = await talk.ended(*filter(None, turn_ids))
    letters = [letter for letter, turn in zip("abcd", _in_order(turn_ids, ended), strict=False) if turn == "completed"]
    if letters:
        await talk.stored(*letters)


def _in_order(turn_ids: Sequence[str], ended: Sequence[dict[str, object]]) -> list[str]:
    statuses = {str(turn.get("turn_id")): str(turn.get("status")) for turn in ended}
    return [statuses.get(turn_id, "") for turn_id in turn_ids]


OVERLAPS: dict[str, Shape] = {
    shape.__name__: shape
    for shape in (
        refused,
        refused_crowd,
        interrupted,
        interrupted_twice,
        merged,
        merged_in_retries,
        merged_and_failed,
        merged_or_cancelled,
        merged_and_held,
        merged_and_interrupted,
    )
}
# If turns that wait for a person let later ones pass.
PASSES: dict[str, Shape] = {
    shape.__name__: shape for shape in (passed, passed_with_merged, passed_and_cancelled, passed_and_interrupted)
}

"""The power of a simulated machine, which fails at a chosen write: of its disk, or of a store that it asks."""

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from random import Random
from typing import TypeVar

T = TypeVar("T")


class Moment(StrEnum):
    """When the machine dies: before the write, after it and before anybody hears of it, or a little later."""

    BEFORE = "before"
    UNACKNOWLEDGED = "unacknowledged"
    AFTER = "after"


@dataclass(frozen=True, slots=True)
class Crash:
    """At write number `write` (from 1) of a life; `rounds` of the loop after it, where `moment` is AFTER."""

    write: int
    moment: Moment
    rounds: int = 0


class MachineDied(Exception):
    """The machine died in this very call: nothing that comes after it takes place."""


class Power:
    """`writes` counts the writes of a life, `grouped` is how many jobs the one had on which the machine died.

    `noticed` is called before each write with its number: there the clock may jump. `died` is called once.
    """

    def __init__(self, crash: Crash | None, random: Random) -> None:
        self.crash = crash
        self.random = random
        self.writes = 0
        self.grouped = 0
        self.dead = False
        self.dead_by_plan = False
        self.died: Callable[[], None] = lambda: None
        self.noticed: Callable[[int], None] = lambda _: None

    def write(self, make: Callable[[], T], jobs: int = 1) -> T:
        """The result of `make`, a write. Raises MachineDied if nobody hears of it, and what `make` raises."""
        if self.dead:
            raise MachineDied
        self.writes += 1
        self.noticed(self.writes)
        crash = self.crash if self.crash is not None and self.crash.write == self.writes else None
        if crash is None:
            return make()
        self.grouped = jobs
        if crash.moment is Moment.BEFORE:
            self.cut()
            raise MachineDied
        if crash.moment is Moment.AFTER:
            self._cut_in(crash.rounds)
            return make()
        with contextlib.suppress(Exception):  # nobody hears of that either
            make()
        self.cut()
        raise MachineDied

    def cut(self) -> None:
        if not self.dead:
            self.dead = self.dead_by_plan = True
            self.died()

    def _cut_in(self, rounds: int) -> None:
        loop = asyncio.get_running_loop()
        if rounds <= 0:
            loop.call_soon(self.cut)
        else:
            loop.call_soon(self._cut_in, rounds - 1)


async def nothing_more() -> None:
    """What a dead machine waits for."""
    await asyncio.get_running_loop().create_future()

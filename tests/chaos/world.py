"""A simulated world: one machine, lives after each other over one file, a client outside. Repeatable by its seed."""

import asyncio
import logging
import random
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from everturn.runtime.store.database import Database
from tests.chaos.checker import violations
from tests.chaos.client import NothingComes, look_at_everything
from tests.chaos.disk import Crash, Moment
from tests.chaos.journal import Journal
from tests.chaos.life import DATABASE_FILE, Life, Parts, Surroundings, Weather
from tests.chaos.shapes import SHAPES, Talk

# Long before any real clock, so that whatever ends is old for the purge, which reads that one.
_START = 1_500_000_000.0
# Goes of a session in a sweep, so that histories stay short and summaries within their limit.
_GOES_A_SESSION = 8
# A clock that was set back makes what waits on disk wait longer by that, so it is set back by less than patience lasts.
_JUMPS_S = (-600.0, 7200.0)

SOUND = Parts()
Work = Callable[[Life], Awaitable[None]]


@dataclass(slots=True)
class Report:
    """What became of a world. `faults` counts those that took place, by kind; `grouped` are the crashes among them that
    fell on a commit of several jobs."""

    seed: str
    faults: Counter[str] = field(default_factory=Counter)
    grouped: Counter[Moment] = field(default_factory=Counter)
    lives: int = 0
    writes: int = 0
    found: list[str] = field(default_factory=list)

    @property
    def total(self) -> int:
        return sum(self.faults.values())

    def add(self, life: Life) -> None:
        self.lives += 1
        self.writes += life.disk.writes
        self.faults.update(life.astray)
        self.faults["clock jump"] += life.jumps
        crash = life.disk.crash
        if life.disk.dead_by_plan and crash is not None:
            self.faults[f"crash {crash.moment}"] += 1
            self.grouped[crash.moment] += life.disk.grouped > 1


class World:
    def __init__(self, folder: Path, seed: str, parts: Parts) -> None:
        self.folder = folder
        self.random = random.Random(seed)
        self.parts = parts
        self.journal = Journal()
        self.around = Surroundings(wall=_START)
        self.report = Report(seed)
        asyncio.run(_create(folder / DATABASE_FILE))

    def live(self, weather: Weather, work: Work) -> bool:
        """One life; True where `work` was done before the machine died."""
        life = Life(self.folder, self.report.lives + 1, self.journal, self.around, self.random)
        try:
            done = life.run(self.parts, weather, work)
        except NothingComes:
            self.report.found.append("something that was to come did not come")
            done = True
        self.report.add(life)
        return done

    def finish(self) -> Report:
        """Let the client look at everything once more in fair weather, then check."""
        self.around.away.clear()
        self.live(Weather(), lambda life: look_at_everything(life.client))
        self.report.found += [what for what in violations(self.journal) if what not in self.report.found]
        return self.report


def sweep(name: str, moment: Moment, parts: Parts = SOUND, *, most: int = 10_000) -> Report:
    """One shape again and again, the machine dying at its first write, its second and so on, until it has no further.

    At most `most` times.
    """
    with _world(f"sweep {name} {moment}", parts) as world:
        go, armed = 0, -1

        async def work(life: Life) -> None:
            nonlocal go, armed
            while go < most:
                is_new, armed = armed < go, go
                life.disk.crash = Crash(life.disk.writes + go + 1, moment, rounds=go % 7) if is_new else None
                batch = go // _GOES_A_SESSION
                await SHAPES[name](Talk(life, f"s{batch}", f"user{batch}", f"{go}"))
                life.disk.crash = None
                go += 1
                if is_new:
                    return

        while not world.live(Weather(), work):
            pass
        return world.finish()


def soak(seed: int, parts: Parts = SOUND, *, crashes: int = 20) -> Report:
    """Several sessions side by side, each with shapes by chance, over `crashes` deaths by chance, in bad weather."""
    with _world(f"soak {seed}", parts) as world:
        plans = [[world.random.choice(list(SHAPES)) for _ in range(3)] for _ in range(3)]

        async def work(life: Life) -> None:
            await asyncio.gather(*(_session(life, number, plan) for number, plan in enumerate(plans)))

        for _ in range(crashes):
            if world.live(_bad_weather(world.random), work):
                break
        else:
            world.live(Weather(), work)
        return world.finish()


async def _session(life: Life, number: int, plan: Sequence[str]) -> None:
    for place, name in enumerate(plan):
        # Two sessions are of one user: their summaries meet.
        await SHAPES[name](Talk(life, f"s{number}", f"user{number // 2}", f"{number}.{place}"))


def _bad_weather(chance: random.Random) -> Weather:
    write = chance.randint(1, 25)
    jumps = {chance.randint(1, write): chance.choice(_JUMPS_S) * chance.random()}
    crash = Crash(write, chance.choice(list(Moment)), rounds=chance.randint(0, 10))
    return Weather(crash, jumps if chance.random() < 0.3 else {}, astray=chance.choice((0.0, 0.2, 0.5)))


@contextmanager
def _world(seed: str, parts: Parts) -> Iterator[World]:
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    random.seed(seed)  # the runtime's own backoff has some chance in it
    try:
        with tempfile.TemporaryDirectory(prefix="everturn-chaos-") as folder:
            yield World(Path(folder), seed, parts)
    finally:
        logging.disable(before)


async def _create(path: Path) -> None:
    database = await Database.open(path)
    await database.close()

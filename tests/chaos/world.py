"""A simulated world: one machine, lives after each other over one file, a client outside. Repeatable by its seed."""

import asyncio
import dataclasses
import logging
import random
import tempfile
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from everturn.compose import Faults
from everturn.runtime.database.database import Database
from tests.chaos.checker import violations
from tests.chaos.client import NothingComes, look_at_everything
from tests.chaos.journal import Journal
from tests.chaos.letters import WORDS, Letter, look_once, send_once
from tests.chaos.life import DATABASE_FILE, Life, Parts, Surroundings, WaitingTurns, Weather
from tests.chaos.overlaps import OVERLAPS, PASSES
from tests.chaos.paid import AGENT
from tests.chaos.power import Crash, Moment
from tests.chaos.shapes import PAID_SHAPES, SHAPES, Shape, Talk
from tests.chaos.simulated_loop import NeverRestsError, pass_time
from tests.chaos.stores import STORES, Trouble

# Long before any real clock, so that whatever ends is old for the purge, which reads that one.
_START = 1_500_000_000.0
# Goes of a session in a sweep, so that histories stay short and summaries within their limit.
_GOES_A_SESSION = 8
# What the system gets to end all that it has accepted, while nobody looks.
_REST_S = 600.0
# A clock that was set back makes what waits on disk wait longer by that, so it is set back by less than patience lasts.
_JUMPS_S = (-600.0, 7200.0)

SOUND = Parts()


@dataclass(frozen=True, slots=True)
class Setting:
    """What a world is made of. `store`: the services' state store, one of `STORES`; None is the runtime's own file.
    `replicas` of each service. `alone`: nobody sends a request again, and nobody looks before the end. `assistant`,
    `waiting_turns`: as the settings of those names. `shapes`: what a client does that looks."""

    store: str | None = None
    replicas: int = 1
    alone: bool = False
    assistant: str | None = None
    waiting_turns: WaitingTurns = "hold"
    shapes: Mapping[str, Shape] = field(default_factory=lambda: SHAPES)


PLAIN = Setting()
WITH_TOOLS = Setting(assistant=AGENT)
PASSING = Setting(assistant=AGENT, waiting_turns="pass", shapes=PASSES)
# By the names of the shapes in a sweep.
_SWEPT = (PLAIN, {**SHAPES, **OVERLAPS}), (WITH_TOOLS, PAID_SHAPES), (PASSING, PASSES)
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
        self.writes += life.power.writes
        self.faults.update(life.astray)
        self.faults["clock jump"] += life.jumps
        crash = life.power.crash
        if life.power.dead_by_plan and crash is not None:
            self.faults[f"crash {crash.moment}"] += 1
            self.grouped[crash.moment] += life.power.grouped > 1


class World:
    def __init__(self, folder: Path, seed: str, parts: Parts, setting: "Setting") -> None:
        self.folder = folder
        self.random = random.Random(seed)
        self.parts = parts
        self.setting = setting
        self.journal = Journal()
        self.around = Surroundings(
            wall=_START,
            store=setting.store,
            replicas=setting.replicas,
            assistant=setting.assistant,
            waiting_turns=setting.waiting_turns,
        )
        self.report = Report(seed)
        asyncio.run(_create(folder / DATABASE_FILE))

    def live(self, weather: Weather, work: Work) -> bool:
        """One life; True where `work` was done before the machine died."""
        random.seed(self.random.getrandbits(64))  # the runtime's own backoff has some chance in it, and so have ids
        life = Life(self.folder, self.report.lives + 1, self.journal, self.around, self.random)
        try:
            done = life.run(self.parts, weather, work)
        except NothingComes:
            self.report.found.append("something that was to come did not come")
            done = True
        except NeverRestsError:
            self.report.found.append("the system was busy for ever, and got nothing done")
            done = True
        self.report.add(life)
        return done

    def finish(self) -> Report:
        """Let the client look at everything in fair weather, then check."""
        self.around.faults = Faults()
        look = look_once if self.setting.alone else look_at_everything
        self.live(Weather(), lambda life: look(life.client))
        self.journal.troubled = any(self.report.faults[kind] for kind in ("lost answer", "store away", "disk full"))
        self.report.found += [what for what in violations(self.journal) if what not in self.report.found]
        return self.report


def sweep(name: str, moment: Moment, parts: Parts = SOUND, *, most: int = 10_000) -> Report:
    """One shape again and again, the machine dying at its first write, its second and so on, until it has no further.

    At most `most` times.
    """
    shape, setting = next((shapes[name], setting) for setting, shapes in _SWEPT if name in shapes)
    with _world(f"sweep {name} {moment}", parts, setting) as world:
        go, armed = 0, -1

        async def work(life: Life) -> None:
            nonlocal go, armed
            while go < most:
                is_new, armed = armed < go, go
                life.power.crash = Crash(life.power.writes + go + 1, moment, rounds=go % 7) if is_new else None
                batch = go // _GOES_A_SESSION
                await shape(Talk(life, f"s{batch}", f"user{batch}", f"{go}"))
                life.power.crash = None
                go += 1
                if is_new:
                    return

        while not world.live(Weather(), work):
            pass
        return world.finish()


def setting_of(seed: int) -> Setting:
    """The setting of the soak of that number."""
    stores = (None, *STORES)
    kind, store = divmod(seed, len(stores))
    return Setting(stores[store], replicas=1 + kind % 2, alone=kind % 4 > 1)


def overlap_setting_of(seed: int) -> Setting:
    """As `setting_of`, with messages that come while a turn of their session has not ended."""
    return dataclasses.replace(setting_of(seed), alone=False, shapes=OVERLAPS)


def pass_setting_of(seed: int) -> Setting:
    """As `setting_of`, with turns that let others pass while they wait for a person."""
    store = setting_of(seed)
    return dataclasses.replace(PASSING, store=store.store, replicas=store.replicas)


def soak(
    seed: int, parts: Parts = SOUND, setting: Setting | None = None, *, crashes: int = 20, kind: str = "soak"
) -> Report:
    """Several sessions side by side, each with shapes by chance, over `crashes` deaths by chance, in bad weather.

    `setting`: that of the number if there is none.
    """
    with _world(f"{kind} {seed}", parts, setting or setting_of(seed)) as world:
        work = _letters_of(world.random) if world.setting.alone else _shapes_of(world.random, world.setting.shapes)

        most_writes = 100 if world.setting.alone else 25
        for _ in range(crashes):
            if world.live(_bad_weather(world.random, most_writes), work):
                break
        else:
            world.live(Weather(), work)
        return world.finish()


def _shapes_of(chance: random.Random, shapes: Mapping[str, Shape]) -> Work:
    plans = [[shapes[chance.choice(list(shapes))] for _ in range(3)] for _ in range(3)]

    async def work(life: Life) -> None:
        await asyncio.gather(*(_session(life, number, plan) for number, plan in enumerate(plans)))

    return work


def _letters_of(chance: random.Random) -> Work:
    """Several sessions side by side, each with two senders, who send each message once; then time passes."""
    plans = [
        [Letter(f"s{number}", f"user{number // 2}", f"{number}.{place}", chance.choice(WORDS)) for place in range(10)]
        for number in range(3)
    ]

    async def work(life: Life) -> None:
        await asyncio.gather(
            *(send_once(life.client, part, chance) for plan in plans for part in (plan[::2], plan[1::2]))
        )
        await pass_time(_REST_S)

    return work


async def _session(life: Life, number: int, plan: Sequence[Shape]) -> None:
    for place, shape in enumerate(plan):
        # Two sessions are of one user: their summaries meet.
        await shape(Talk(life, f"s{number}", f"user{number // 2}", f"{number}.{place}"))


def _bad_weather(chance: random.Random, most_writes: int) -> Weather:
    write = chance.randint(1, most_writes)
    jumps = {chance.randint(1, write): chance.choice(_JUMPS_S) * chance.random()}
    crash = Crash(write, chance.choice(list(Moment)), rounds=chance.randint(0, 10))
    away_at = chance.random() * 20
    trouble = Trouble(
        lost=chance.choice((0.0, 0.02, 0.1)),
        refused=(away_at, away_at + chance.random() * 5) if chance.random() < 0.3 else (0.0, 0.0),
    )
    astray = chance.choice((0.0, 0.2, 0.5))
    full = chance.choice((0.0, 0.0, 0.02, 0.1))
    return Weather(crash, jumps if chance.random() < 0.3 else {}, astray, trouble, full)


@contextmanager
def _world(seed: str, parts: Parts, setting: Setting = PLAIN) -> Iterator[World]:
    before, uuid4 = logging.root.manager.disable, uuid.uuid4
    uuid.uuid4 = lambda: uuid.UUID(int=random.getrandbits(128), version=4)
    logging.disable(logging.CRITICAL)
    try:
        with tempfile.TemporaryDirectory(prefix="everturn-chaos-") as folder:
            yield World(Path(folder), seed, parts, setting)
    finally:
        logging.disable(before)
        uuid.uuid4 = uuid4


async def _create(path: Path) -> None:
    database = await Database.open(path)
    await database.close()

"""What an attack is, and how one is run."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import IntEnum

from tests.hostile.stages import NotHere, Site, Stage, Stages
from tests.hostile.watch import Figures, Watch
from tests.hostile.wire import Answer, ask


class Size(IntEnum):
    """How long it takes: as long as a test may, up to a minute and a half, or so long that no test does it."""

    QUICK = 0
    SLOW = 1
    LARGE = 2


@dataclass(frozen=True, slots=True)
class Seen:
    """What came of an attack; `refused` is whether the system did what is expected of it."""

    refused: bool
    what: str


@dataclass(frozen=True, slots=True)
class Scene:
    """Where an attack takes place: the system, which of its places, which case of the attack, and what it costs."""

    site: Site
    case: str
    watch: Watch


@dataclass(frozen=True, slots=True)
class Attack:
    """One attack with one case of it. `beside`: it mostly waits, so that others can run in the meantime.
    `fresh`: it gets a new system, as memory that an earlier attack took would be used again."""

    name: str
    expected: str
    stage: Stage
    at: str
    size: Size
    beside: bool
    fresh: bool
    case: str
    run: Callable[[Scene], Awaitable[Seen]]


@dataclass(frozen=True, slots=True)
class Row:
    """What is reported of an attack. `seen` is None if it was not tried."""

    attack: Attack
    seen: Seen | None
    figures: Figures | None


ATTACKS: list[Attack] = []
_Run = Callable[[Scene], Awaitable[Seen]]
# By where: the system and the name of its place.
CHAT, MEMORY, SIDECAR = (Stage.UP, "chat"), (Stage.UP, "memory"), (Stage.SIDECAR, "sidecar")


def attack(
    expected: str,
    *places: tuple[Stage, str],
    cases: tuple[str, ...] = ("",),
    size: Size = Size.QUICK,
    beside: bool = False,
    fresh: bool = False,
) -> Callable[[_Run], _Run]:
    """Add a function to the attacks: once for each place and each case."""

    def add(run: _Run) -> _Run:
        for stage, at in places:
            for case in cases:
                details = ", ".join(filter(None, [at if len(places) > 1 else "", case]))
                name = run.__name__ + (f"[{details}]" if details else "")
                ATTACKS.append(Attack(name, expected, stage, at, size, beside, fresh, case, run))
        return run

    return add


def seen(answer: Answer, *statuses: int) -> Seen:
    """Refused if the answer has one of `statuses`."""
    return Seen(answer.status in statuses, str(answer))


async def run(each: Attack, stages: Stages) -> Row:
    """Run one attack. A system that ended over it, or no longer answers, has not refused it, and is replaced."""
    if each.fresh:
        await stages.restart(each.stage)
    try:
        site = await stages.site(each.stage, each.at)
    except NotHere:
        return Row(each, None, None)
    place = site.places[each.at]
    with Watch(place, site.patience_s) as watch:
        try:
            outcome = await each.run(Scene(site, each.case, watch))
        except NotHere:
            return Row(each, None, None)
        except (OSError, TimeoutError) as error:
            outcome = Seen(False, f"no answer ({type(error).__name__})")
        figures = watch.figures()
    if not site.alive:
        outcome = Seen(False, "the process ended")
    elif await _answers(site):
        return Row(each, outcome, figures)
    await stages.restart(each.stage)
    return Row(each, outcome, figures)


async def _answers(site: Site) -> bool:
    for place in site.places.values():
        try:
            if (await ask(place, "GET", place.health, patience_s=1.0)).status == 0:
                return False
        except OSError:
            return False
    return True

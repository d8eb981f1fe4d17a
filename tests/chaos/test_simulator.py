"""The machine dies at every write of every shape of turn; a client that retries by key sees nothing of it."""

from collections import Counter
from pathlib import Path

import pytest

from tests.chaos.bugs import forget_calls, in_chat
from tests.chaos.campaign import counted, run, run_all, soaks, sweeps, tell, told
from tests.chaos.life import Life, Weather
from tests.chaos.power import Moment
from tests.chaos.shapes import Talk
from tests.chaos.stores import Trouble
from tests.chaos.world import SOUND, Setting, World, sweep

# The same in every run, so that a failure is a change's; `make chaos` takes others.
_FIRST_SOAK = 1
_SOAKS = 20


def test_a_crash_at_any_write_of_any_turn_loses_doubles_and_reorders_nothing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    reports = list(run_all([*sweeps(), *soaks(_FIRST_SOAK, _SOAKS)]))

    faults = counted(reports)
    tell("\n".join(told(report) for report in reports))
    with capsys.disabled():
        tell(
            f" {faults.total()} faults in {len(reports)} worlds: every sweep, soak {_FIRST_SOAK} and {_SOAKS - 1} more"
        )
    assert [told(report) for report in reports if report.found] == []
    assert faults.total() >= 1_000
    assert all(faults[f"crash {moment}"] >= 300 for moment in Moment)
    grouped = sum((report.grouped for report in reports), Counter[Moment]())
    assert all(grouped[moment] >= 30 for moment in Moment)
    assert all(faults[kind] > 0 for kind in ("doubled", "late", "unanswered", "refused", "clock jump"))


def test_a_world_can_be_repeated_by_its_seed() -> None:
    once, again = run("soak 7"), run("soak 7")

    assert once == again
    assert once.total > 0


def test_a_sweep_ends_when_its_shape_has_no_further_write() -> None:
    report = sweep("plain", Moment.BEFORE)

    # A world without a crash has one write more than the last that one could fall on.
    assert report.faults["crash before"] >= 12
    assert report.faults["crash before"] == report.lives - 2


def test_a_turn_outlasts_the_errors_of_its_model_and_a_store_that_is_away(tmp_path: Path) -> None:
    world = World(tmp_path, "a store is away", SOUND, Setting("redis"))
    # It goes away while the model is first asked, and comes back after four more attempts.
    weather = Weather(trouble=Trouble(refused=(0.5, 20.0)))

    async def work(life: Life) -> None:
        talk = Talk(life, "s0", "user0", "0")
        await talk.say("a", "500 429 slow=1")
        await talk.stored("a")

    world.live(weather, work)
    report = world.finish()

    assert report.faults["store away"] >= 4
    assert report.found == []


def test_an_unknown_seed_is_refused() -> None:
    with pytest.raises(ValueError, match="no world has the seed"):
        run("storm 1")


def test_a_system_that_forgets_what_a_turn_has_called_is_found() -> None:
    report = sweep("paid", Moment.AFTER, in_chat(forget_calls), most=3)

    assert any(found.startswith("each_call_is_paid_once") for found in report.found)

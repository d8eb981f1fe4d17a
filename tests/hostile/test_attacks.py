"""Each attack is refused, but for those that are known to get through. A fix takes its name off the list."""

import asyncio
from collections.abc import Mapping

import pytest

from tests.hostile.attack import Attack, Row, Size
from tests.hostile.catalogue import attacks, run_all
from tests.hostile.known import KNOWN
from tests.hostile.stages import Stages

_IN_TESTS = [each for each in attacks() if each.size is not Size.LARGE]


async def _run(chosen: list[Attack]) -> Mapping[str, Row]:
    async with Stages(large=False) as stages:
        return await run_all(chosen, stages)


@pytest.fixture(scope="module")
def rows(request: pytest.FixtureRequest) -> Mapping[str, Row]:
    """What came of the attacks that were chosen, which run together: some of them wait most of the time."""
    wanted = {name for item in request.session.items if (name := _attack_of(item)) is not None}
    return asyncio.run(_run([each for each in _IN_TESTS if each.name in wanted]))


def _attack_of(item: pytest.Item) -> str | None:
    callspec = getattr(item, "callspec", None)
    each = callspec.params.get("each") if callspec is not None else None
    return each.name if isinstance(each, Attack) else None


@pytest.mark.parametrize(
    "each",
    [pytest.param(each, id=each.name, marks=pytest.mark.slow if each.size is Size.SLOW else ()) for each in _IN_TESTS],
)
def test_an_attack_is_refused_unless_it_is_known_to_get_through(each: Attack, rows: Mapping[str, Row]) -> None:
    seen = rows[each.name].seen

    assert seen is not None
    if each.name in KNOWN:
        assert not seen.refused, f"refused now ({seen.what}): take it off KNOWN"
    else:
        assert seen.refused, f"expected {each.expected}, seen {seen.what}"


def test_every_known_attack_exists() -> None:
    assert {each.name for each in _IN_TESTS} >= KNOWN


def test_every_attack_has_a_name_of_its_own() -> None:
    names = [each.name for each in attacks()]

    assert len(set(names)) == len(names)

"""The checker is checked: each planted bug is found, within a few worlds; without one nothing is."""

import warnings

import pytest

from tests.chaos.bugs import BUGS, DEFECTS, Bug
from tests.chaos.campaign import tell
from tests.chaos.overlap_bugs import OVERLAP_BUGS
from tests.chaos.world import soak

_WORLDS = 20


_ALL = {**{name: Bug(parts) for name, parts in BUGS.items()}, **DEFECTS, **OVERLAP_BUGS}


@pytest.mark.parametrize("bug", _ALL)
def test_the_simulator_finds_a_system_that(bug: str) -> None:
    faults = 0
    found: list[str] = []

    for seed in range(_WORLDS):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            report = soak(seed, _ALL[bug].parts, _ALL[bug].setting)
        faults += report.total
        found = report.found
        if found:
            break

    tell(f"{bug}: found after {faults} faults: {found[:1]}")
    assert found, f"not found within {faults} faults"

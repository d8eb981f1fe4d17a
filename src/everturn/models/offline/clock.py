"""The offline demo's use of the tool `get_current_time`: which time zone to ask for, and how to say the answer."""

import re
from datetime import datetime
from functools import cache
from zoneinfo import available_timezones


def time_zone(place: str) -> str | None:
    """The IANA time zone of a city or of a zone's own name; None where the database has none."""
    wanted = re.sub(r"\s+(?:now|right now|please|today)$", "", place.strip()).replace(" ", "_").casefold()
    return _zones().get(wanted)


def told(result: str, place: str) -> str:
    """The answer to the question for the time, from the tool's own answer."""
    try:
        moment = datetime.fromisoformat(result)
    except ValueError:
        return "I could not read the clock."
    where = "UTC" if moment.utcoffset() is None or not moment.utcoffset() else f"UTC{result[-6:]}"
    said = f"It is {moment:%H:%M} on {moment:%A}, {moment:%Y-%m-%d} ({where})."
    if place and time_zone(place) is None:
        return f"I do not know the time zone of {place}. {said}"
    return said


@cache
def _zones() -> dict[str, str]:
    """Zones by their name and by the city in it, in lower case."""
    zones = sorted(available_timezones())
    by_city = {zone.rsplit("/", 1)[-1].casefold(): zone for zone in zones if "/" in zone}
    return by_city | {zone.casefold(): zone for zone in zones}

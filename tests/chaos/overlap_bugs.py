"""Planted bugs of messages that come while a turn of their session has not ended, as `bugs` has others."""

import json
from typing import Any

from everturn.dapr.wire import Request, Response
from tests.chaos.bugs import Bug, Send, ignore_etags, in_chat, of_events, saves_of, with_saves_changed
from tests.chaos.overlaps import OVERLAPS
from tests.chaos.simulated_loop import pass_time
from tests.chaos.world import PASSING, Setting


def _places(save: dict[str, Any]) -> list[dict[str, Any]]:
    return list(save["value"].get("queue", ())) if save["key"].startswith("session:") else []


async def forget_to_interrupt(request: Request, send: Send) -> Response:
    def change(save: dict[str, Any]) -> None:
        for place in _places(save):
            if place.get("overlap") == "interrupt":
                del place["overlap"]

    return await send(with_saves_changed(request, change))


async def forget_who_took_it(request: Request, send: Send) -> Response:
    """The place of a message that was taken up does not say so, so that it can be cancelled."""

    def change(save: dict[str, Any]) -> None:
        for place in _places(save):
            place.pop("into", None)

    return await send(with_saves_changed(request, change))


async def forget_what_was_taken(request: Request, send: Send) -> Response:
    """A reply does not say which messages it answers, so that they are answered once more."""

    def change(save: dict[str, Any]) -> None:
        if save["key"].endswith(":verdict"):
            save["value"].pop("merged", None)

    return await send(with_saves_changed(request, change))


async def keep_merged_to_itself(request: Request, send: Send) -> Response:
    event = json.loads(request.body)
    event["data"].pop("merged", None)
    return await send(Request(request.method, request.target, request.headers, json.dumps(event).encode()))


async def forget_who_waits(request: Request, send: Send) -> Response:
    """A turn that lets others pass has no place any more."""

    def change(save: dict[str, Any]) -> None:
        if save["key"].startswith("session:"):
            save["value"].pop("waiting", None)

    return await send(with_saves_changed(request, change))


async def look_too_early(request: Request, send: Send) -> Response:
    """Who takes a place writes it over what others have written since the session was read."""
    if not any(save["key"].startswith("session:") for save in saves_of(request)):
        return await send(request)
    await pass_time(0.05)
    return await ignore_etags(request, send)


OVERLAPPING = Setting(shapes=OVERLAPS)

OVERLAP_BUGS: dict[str, Bug] = {
    "accepts two messages that do not wait": Bug(in_chat(look_too_early), Setting(replicas=2, shapes=OVERLAPS)),
    "forgets to interrupt": Bug(in_chat(forget_to_interrupt), OVERLAPPING),
    "forgets who took a message up": Bug(in_chat(forget_who_took_it), OVERLAPPING),
    "answers a merged message once more": Bug(in_chat(forget_what_was_taken), OVERLAPPING),
    "forgets who waits for a person": Bug(in_chat(forget_who_waits), PASSING),
    "stores no merged message": Bug(of_events(keep_merged_to_itself), OVERLAPPING),
}

"""Texts of the allowed length that could hold the loop, for every parser that sees what a user has written."""

import asyncio
import json
import re
import uuid

from everturn.chat.api import MAX_MESSAGES
from tests.hostile.attack import Scene, Seen, Size, attack
from tests.hostile.inputs import message
from tests.hostile.stages import Stage
from tests.hostile.wire import ask_json

# EVERTURN_MAX_TEXT_CHARS
_MOST_CHARS = 32_000
# Of a body (web/requests.py), less what is around the messages.
_BODY_CHARS = 1_048_576 - 200
# A summary is refreshed after so many turns of its session.
_TURNS_TO_SUMMARY = 8
_TRIES = 3
_LOOK_S = 0.05
_TEXTS = (Stage.TEXTS, "chat")

# What is repeated up to the limit, by what it is after.
_UNITS = {
    "abbreviations": "a. ",
    "full stops": ".",
    "sentences": "I am. ",
    "ellipses": "… ",
    "line ends": "\n",
    "semicolons": "; ",
    "spaces": " x" + " " * 400,
    "commas": ", ",
    "quotes": "\"'",
    "curly apostrophes": "\u2019",
    "brackets": "((",
    "facts": "my {n} is {n}. ",
    "likes": "I like {n}. ",
    "dislikes": "I do not like {n}. ",
    "many likes": "I like this and ",
    "notes": "remember that {n}. ",
    "open notes": "remember that ",
    "names": "call me {n}. ",
    "names on names": "my name is ",
    "homes": "I live in ",
    "subjects": "my dog's ",
    "questions": "what is my {n}? ",
    "open questions": "what is my ",
    "everything": "what do you know about me? ",
    "times": "what time is it in {n}? ",
    "zones": "what time is it in a/",
    "corrections": "no, my ",
    "greetings": "hi ",
    "words": "is are my the ",
    "one word": "a",
    "combining marks": "a\u0301",
    "long case folding": "\ufb03",
    "angle brackets": "</data>\n",
    "backslashes": "\\",
    "separators": "\u2028",
    "emoji": "\U0001f468\u200d\U0001f469\u200d\U0001f467",
    "addresses": "a@a.a/",
    "digits": "1",
}


def text_of(name: str, chars: int = _MOST_CHARS) -> str:
    """The text by that name, of `chars` characters; `{n}` counts."""
    unit, length = _UNITS[name], 0
    parts: list[str] = []
    while length < chars:
        parts.append(unit.replace("{n}", f"n{len(parts)}"))
        length += len(parts[-1])
    text = "".join(parts)[:chars]
    return text if text.strip() else "x" + text[1:]


@attack("the loop is not held", _TEXTS, cases=tuple(_UNITS))
async def sends_a_text_that_is_slow_to_read(scene: Scene) -> Seen:
    """The smallest of a few tries, so that another program's moment is not taken for ours."""
    stall_s = scene.site.patience_s
    for _ in range(_TRIES):
        scene.watch.forget()
        body = message(text_of(scene.case))
        status = str(await ask_json(scene.site.chat, "POST", "/chat/", body, patience_s=scene.site.patience_s))
        stall_s = min(stall_s, scene.watch.so_far())
        if status != "200" or stall_s <= scene.site.stall_limit_s or stall_s > 1:
            break
    return Seen(status == "200" and stall_s <= scene.site.stall_limit_s, f"{status}, held {stall_s * 1000:.0f} ms")


@attack("the loop is not held", _TEXTS, cases=("as many as may be", "user", "system", "empty", "agui"))
async def sends_many_small_messages(scene: Scene) -> Seen:
    """A conversation in messages of one character or none: as many as are taken, or as a body can have."""
    said = {
        "role": "system" if scene.case == "system" else "user",
        "content": "" if scene.case == "empty" else "a",
        **({"id": "m"} if scene.case == "agui" else {}),
    }
    many = MAX_MESSAGES - 1 if "may be" in scene.case else _BODY_CHARS // (len(json.dumps(said)) + 2)
    sent = {"messages": [*[said] * many, {**said, "role": "user", "content": "Hi"}]}
    path = "/agui" if scene.case == "agui" else "/v1/chat/completions"
    body = {"threadId": str(uuid.uuid4()), "runId": str(uuid.uuid4()), **sent} if scene.case == "agui" else sent
    stall_s = scene.site.patience_s
    for _ in range(_TRIES):
        scene.watch.forget()
        status = str(await ask_json(scene.site.chat, "POST", path, body, patience_s=scene.site.patience_s))
        stall_s = min(stall_s, scene.watch.so_far())
    expected = "200" if "may be" in scene.case else "422" if scene.case == "agui" else "400"
    return Seen(status == expected and stall_s <= scene.site.stall_limit_s, f"{status}, held {stall_s * 1000:.0f} ms")


@attack("the loop is not held", _TEXTS, cases=tuple(_UNITS), size=Size.LARGE)
async def has_slow_texts_summarised(scene: Scene) -> Seen:
    """As many turns as start a refresh, until one has been made. The smallest of a few tries, as above."""
    stall_s = scene.site.patience_s
    for _ in range(_TRIES):
        user, before = str(uuid.uuid4()), await _refreshed(scene)
        scene.watch.forget()
        for _ in range(_TURNS_TO_SUMMARY):
            await ask_json(scene.site.chat, "POST", "/chat/", message(text_of(scene.case), user=user, session=user))
        async with asyncio.timeout(scene.site.patience_s):
            while await _refreshed(scene) == before:  # noqa: ASYNC110 - another process makes it
                await asyncio.sleep(_LOOK_S)
        stall_s = min(stall_s, scene.watch.so_far())
        if stall_s <= scene.site.stall_limit_s or stall_s > 1:
            break
    return Seen(stall_s <= scene.site.stall_limit_s, f"held {stall_s * 1000:.0f} ms")


async def _refreshed(scene: Scene) -> float:
    """How many summaries have been made."""
    metrics = (await ask_json(scene.site.memory, "GET", "/metrics")).text
    found = re.search(r'^everturn_summaries_total\{outcome="refreshed"\} (\S+)$', metrics, re.MULTILINE)
    return float(found.group(1)) if found else 0.0

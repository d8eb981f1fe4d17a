"""Texts of the allowed length that could hold the loop, for every parser that sees what a user has written."""

import asyncio
import json
import uuid

from everturn.chat.api import MAX_MESSAGES
from tests.hostile.attack import Scene, Seen, Size, attack
from tests.hostile.inputs import message
from tests.hostile.stages import Stage
from tests.hostile.wire import ask_json

# EVERTURN_MAX_TEXT_CHARS
_MOST_CHARS = 32_000
# Of a body (web/middleware.py), less what is around the messages.
_BODY_CHARS = 1_048_576 - 200
# A summary is refreshed after so many turns of its session.
_TURNS_TO_SUMMARY = 8
_TRIES = 3
_LOOKS = 48
_LOOK_S = 0.25
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


# "abbreviations" alone would hold it for minutes.
_NAMES = [name for name in _UNITS if name != "abbreviations"]
_GROUPS = {
    f"{group[0]} to {group[-1]}": group for group in (_NAMES[start : start + 6] for start in range(0, len(_NAMES), 6))
}


@attack("the loop is not held", _TEXTS, cases=tuple(_GROUPS), size=Size.LARGE)
async def has_slow_texts_summarised(scene: Scene) -> Seen:
    """For each text a user with as many turns as start a refresh, and a look at their memories until all changed."""
    users = {name: str(uuid.uuid4()) for name in _GROUPS[scene.case]}
    before = {name: await _summary(scene, user) for name, user in users.items()}
    scene.watch.forget()
    for name, user in users.items():
        for _ in range(_TURNS_TO_SUMMARY):
            await ask_json(scene.site.chat, "POST", "/chat/", message(text_of(name), user=user, session=user))
    waiting = set(users)
    for _ in range(_LOOKS):
        await asyncio.sleep(_LOOK_S)
        waiting = {name for name in waiting if await _summary(scene, users[name]) == before[name]}
        if not waiting:
            break
    stall_s = scene.watch.so_far()
    changed = f"{len(users) - len(waiting)} of {len(users)} changed"
    return Seen(stall_s <= scene.site.stall_limit_s, f"{changed}, held {stall_s * 1000:.0f} ms")


async def _summary(scene: Scene, user: str) -> str:
    answer = await ask_json(scene.site.memory, "GET", f"/memories/{user}")
    return str((answer.json() or {}).get("user_summary"))

"""Who may call: tokens, web pages, other programs and other users of the machine."""

import stat
import uuid

from tests.hostile.attack import CHAT, MEMORY, SIDECAR, Scene, Seen, attack, seen
from tests.hostile.stages import CANARY, CANARY_NAME, NotHere, Stage
from tests.hostile.wire import Answer, Place, ask, ask_json

_TOKEN_SIDECAR, _TOKEN_MEMORY = (Stage.TOKENS, "sidecar"), (Stage.TOKENS, "memory")
_FOREIGN = "https://evil.example"
_HARMLESS = {"chat": "/turns/nobody", "memory": "/memories/nobody", "sidecar": "/v1.0/metadata"}


def event(session: str, **changes: object) -> dict[str, object]:
    """A CloudEvent of the subscription, as the chat service sends it; `changes` go into its data."""
    turn_id = str(uuid.uuid4())
    data = {
        "event_type": "ConversationUpdated",
        "user_id": "mallory",
        "session_id": session,
        "user_message": "My name is Mallory",
        "assistant_reply": "Noted.",
        "turn_id": turn_id,
        "sequence": 1,
        **changes,
    }
    return {"specversion": "1.0", "id": turn_id, "source": "chat-service", "type": "com.dapr.event.sent", "data": data}


async def was_stored(place: Place, session: str) -> bool:
    """Whether the memory service has anything of that session."""
    answer = await ask_json(place, "GET", f"/conversations/{session}")
    return bool((answer.json() or {}).get("history"))


async def _outcome(place: Place, session: str, answer: Answer) -> Seen:
    stored = await was_stored(place, session)
    said = f"{answer} {answer.text[:40]}" if answer.status == 200 else str(answer)
    return Seen(not stored and answer.status in (200, 400, 401, 403, 415, 422), said + (", stored" if stored else ""))


@attack("401", _TOKEN_SIDECAR, cases=("dot segments", "below health", "header on health", "encoded dots", "outbound"))
async def reaches_the_app_without_a_token_through_health(scene: Scene) -> Seen:
    below = "../../memories/junaid"
    path = {
        "dot segments": f"/v1.0/healthz/../{below}",
        "below health": "/v1.0/healthz/memories/junaid",
        "header on health": "/v1.0/healthz",
        "encoded dots": "/v1.0/healthz/%2e%2e/%2e%2e/memories/junaid",
        "outbound": f"/v1.0/healthz/outbound/../{below}",
    }[scene.case]
    answer = await ask(scene.site.sidecar, "GET", path, [("dapr-app-id", "agent-memory-service")])
    if scene.case == "header on health":  # health itself may answer; the app must not be asked
        return Seen(answer.status in (204, 401), str(answer))
    return seen(answer, 401)


@attack("401", _TOKEN_SIDECAR, _TOKEN_MEMORY)
async def calls_without_a_token(scene: Scene) -> Seen:
    on_sidecar = "sidecar" if scene.watch.place == scene.site.sidecar else "memory"
    return seen(await ask(scene.watch.place, "GET", _HARMLESS[on_sidecar]), 401)


@attack("400", _TOKEN_SIDECAR, _TOKEN_MEMORY, cases=("wrong first", "wrong last"))
async def shows_two_tokens(scene: Scene) -> Seen:
    place = scene.watch.place
    tokens = ["guessed", place.token or ""] if scene.case == "wrong first" else [place.token or "", "guessed"]
    path = _HARMLESS["sidecar" if place == scene.site.sidecar else "memory"]
    return seen(await ask(place, "GET", path, [("dapr-api-token", token) for token in tokens]), 400)


@attack("not stored", MEMORY)
async def a_web_page_plants_an_event_without_preflight(scene: Scene) -> Seen:
    session = f"planted-{uuid.uuid4()}"
    headers = [("Content-Type", "text/plain"), ("Origin", _FOREIGN), ("Sec-Fetch-Site", "cross-site")]
    answer = await ask_json(scene.site.memory, "POST", "/conversations", event(session), headers)
    return await _outcome(scene.site.memory, session, answer)


@attack("not stored", MEMORY)
async def another_program_sends_an_event(scene: Scene) -> Seen:
    session = f"foreign-{uuid.uuid4()}"
    answer = await ask_json(scene.site.memory, "POST", "/conversations", event(session))
    return await _outcome(scene.site.memory, session, answer)


@attack("not stored", _TOKEN_MEMORY, cases=("text/plain", "application/x-www-form-urlencoded", "none"))
async def sends_an_event_of_another_type(scene: Scene) -> Seen:
    session = f"typed-{uuid.uuid4()}"
    headers = [("Content-Type", "" if scene.case == "none" else scene.case)]
    answer = await ask_json(scene.site.memory, "POST", "/conversations", event(session), headers)
    return await _outcome(scene.site.memory, session, answer)


@attack("not stored", _TOKEN_MEMORY, cases=("2^53-1", "10^12", "10^30", "0", "-1"))
async def sends_an_event_with_a_sequence_that_cannot_be(scene: Scene) -> Seen:
    sequence = {"2^53-1": 2**53 - 1, "10^12": 10**12, "10^30": 10**30, "0": 0, "-1": -1}[scene.case]
    session = f"sequence-{uuid.uuid4()}"
    answer = await ask_json(scene.site.memory, "POST", "/conversations", event(session, sequence=sequence))
    return await _outcome(scene.site.memory, session, answer)


@attack("stored", _TOKEN_MEMORY, cases=("application/json", "application/cloudevents+json"))
async def honest_event_is_taken(scene: Scene) -> Seen:
    session = f"honest-{uuid.uuid4()}"
    headers = [("Content-Type", scene.case)]
    answer = await ask_json(scene.site.memory, "POST", "/conversations", event(session), headers)
    return Seen(answer.status == 200 and await was_stored(scene.site.memory, session), str(answer))


@attack(
    "403", CHAT, MEMORY, SIDECAR, cases=("Origin", "Origin: null", "Sec-Fetch-Site: cross-site", "Host", "Host suffix")
)
async def calls_from_a_foreign_page(scene: Scene) -> Seen:
    place = scene.watch.place
    headers = {
        "Origin": [("Origin", _FOREIGN)],
        "Origin: null": [("Origin", "null")],
        "Sec-Fetch-Site: cross-site": [("Sec-Fetch-Site", "cross-site")],
        "Host": [("Host", f"evil.example:{place.port}")],  # DNS rebinding: the page's own name, our address
        "Host suffix": [("Host", f"localhost.evil.example:{place.port}")],
    }[scene.case]
    return seen(await ask_json(place, "GET", _HARMLESS[_name_of(scene)], headers=headers), 403)


@attack("answered", CHAT, MEMORY, SIDECAR, cases=("localhost", "127.0.0.1", "[::1]", "no Origin"))
async def honest_host_is_answered(scene: Scene) -> Seen:
    host = "127.0.0.1" if scene.case == "no Origin" else scene.case
    headers = [("Host", f"{host}:{scene.watch.place.port}")]
    answer = await ask_json(scene.watch.place, "GET", _HARMLESS[_name_of(scene)], headers=headers)
    return seen(answer, 200, 404)


@attack("200", CHAT, MEMORY, cases=("/healthz", "/metrics"))
async def honest_probe_is_answered_under_any_host(scene: Scene) -> Seen:
    return seen(await ask(scene.watch.place, "GET", scene.case, [("Host", "pod-7.internal")]), 200)


@attack("200", CHAT, MEMORY)
async def honest_page_is_answered(scene: Scene) -> Seen:
    headers = [("Origin", "http://localhost:3000"), ("Sec-Fetch-Site", "same-site")]
    return seen(await ask_json(scene.watch.place, "GET", "/", headers=headers), 200)


@attack("only the named keys", SIDECAR, cases=("one", "bulk"))
async def reads_the_environment_as_secrets(scene: Scene) -> Seen:
    path = f"/v1.0/secrets/secretstore/{CANARY_NAME if scene.case == 'one' else 'bulk'}"
    answer = await ask_json(scene.site.sidecar, "GET", path)
    leaks = [name for name, value in ((CANARY_NAME, CANARY), ("PATH", "/bin")) if value in answer.text]
    return Seen(not leaks and answer.status != 0, f"{answer}" + (f", has {' and '.join(leaks)}" if leaks else ""))


@attack("0700 and 0600", CHAT)
async def another_user_of_the_machine_reads_the_data(scene: Scene) -> Seen:
    if not scene.site.data.is_dir():
        raise NotHere
    body = {"user_id": "junaid", "text": "Hi", "metadata": {"session_id": f"modes-{uuid.uuid4()}"}}
    await ask_json(scene.site.chat, "POST", "/chat/", body)  # so that everything that is written has been
    paths = [scene.site.data, *scene.site.data.rglob("*")]
    open_ones = [path for path in paths if stat.S_IMODE(path.lstat().st_mode) & 0o077]
    modes = sorted({f"{stat.S_IMODE(path.lstat().st_mode):04o}" for path in open_ones})
    return Seen(not open_ones, ", ".join(modes) + " open to others" if open_ones else "closed")


@attack("a warning", (Stage.SCRIPTED, "chat"))
async def another_user_of_the_machine_reads_the_key(scene: Scene) -> Seen:
    warned = ".env" in scene.site.log()
    return Seen(warned, "warned" if warned else "no word of it")


def _name_of(scene: Scene) -> str:
    return next(name for name, place in scene.site.places.items() if place == scene.watch.place)

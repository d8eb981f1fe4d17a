"""The contract of the agent memory service, as its callers see it: over a real socket, on the embedded runtime."""

import json
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import quote

import pytest
from agents.testing import ScriptedModel, assistant_message
from pydantic import SecretStr

from everturn.contracts.events import CONVERSATIONS_TOPIC, DEAD_LETTERS_TOPIC, PUBSUB_NAME
from everturn.settings import Settings
from tests.contract.memory_service import MemoryService, event, memory_service

CLOUD_EVENT = {"content-type": "application/cloudevents+json"}
ANN = {"name": "Ann", "preferred_style": "formal", "user_summary": "Ann lives in Oslo."}


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[MemoryService]:
    async with memory_service(tmp_path) as running:
        yield running


async def test_the_welcome_is_that_of_the_memory_service(service: MemoryService) -> None:
    assert (await service.client.get("/")).json() == {
        "message": "Welcome to the DACA Agent Memory Service! Access /docs for the API documentation."
    }


async def test_an_unknown_user_gets_the_default_memory(service: MemoryService) -> None:
    assert (await service.client.get("/memories/junaid")).json() == {
        "name": "junaid",
        "preferred_style": "casual",
        "user_summary": "junaid is a new user.",
    }


async def test_a_memory_that_was_initialized_is_remembered(service: MemoryService) -> None:
    answer = await service.client.post("/memories/ann/initialize", json=ANN)

    assert answer.json() == {"status": "success", "user_id": "ann", "metadata": ANN}
    assert (await service.client.get("/memories/ann")).json() == ANN


@pytest.mark.parametrize("field", ["name", "preferred_style", "user_summary"])
@pytest.mark.parametrize("value", ["x" * 2_001, "a\x00b", 5, None])
async def test_a_memory_of_the_wrong_shape_is_422(service: MemoryService, field: str, value: object) -> None:
    answer = await service.client.post("/memories/ann/initialize", json={**ANN, field: value})

    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("identity", ["a/b", "dead-letters", "x/initialize", "ü||%2F", "😀" * 256])
async def test_any_id_names_a_user_and_a_session(service: MemoryService, identity: str) -> None:
    path = f"/memories/{quote(identity, safe='')}"
    await service.client.post(f"{path}/initialize", json=ANN)
    await service.send(event("t1", 1, session_id=identity, user_id=identity))

    assert (await service.client.get(path)).json() == ANN
    assert len(await service.history(identity)) == 2


@pytest.mark.parametrize("path", ["/memories/a%0A", "/conversations/a%0A", "/conversations/%00", "/memories/%20"])
async def test_a_bad_id_is_422(service: MemoryService, path: str) -> None:
    assert (await service.client.get(path)).status_code == 422


async def test_an_unknown_conversation_is_empty(service: MemoryService) -> None:
    assert (await service.client.get("/conversations/nobody")).json() == {"history": []}


async def test_a_stored_turn_has_two_entries_with_the_times_of_its_acceptance_and_reply(service: MemoryService) -> None:
    status = await service.send(event("t1", 1))

    assert status == "SUCCESS"
    assert await service.history("s") == [
        {"role": "user", "content": "message of t1", "timestamp": "2026-01-31T12:00:00.000Z"},
        {"role": "assistant", "content": "reply of t1", "timestamp": "2026-01-31T12:00:01.000Z"},
    ]


async def test_events_that_are_late_or_come_twice_read_in_order_once(service: MemoryService) -> None:
    statuses = [await service.send(event(f"t{number}", number)) for number in (3, 1, 2, 3, 1)]

    assert statuses == ["SUCCESS"] * 5
    assert [entry["content"] for entry in (await service.history("s"))[::2]] == [f"message of t{n}" for n in (1, 2, 3)]
    assert await service.metric('everturn_events_total{outcome="stored"}') == 3
    assert await service.metric('everturn_events_total{outcome="duplicate"}') == 2


async def test_an_event_of_an_older_publisher_is_stored_once_at_the_end(service: MemoryService) -> None:
    await service.send(event("t5", 5))

    for _ in range(2):
        assert await service.send(event(None, None, id="old", accepted_at=None, occurred_at=None)) == "SUCCESS"

    history = await service.history("s", "?window_chars=100000")
    assert [entry["sequence"] for entry in history] == [5, 5, 6, 6]
    assert history[2]["timestamp"] == "2026-01-31T12:00:02.000Z"


async def test_another_users_event_is_dropped(service: MemoryService) -> None:
    await service.send(event("t1", 1))

    assert await service.send(event("t2", 2, user_id="mallory")) == "DROP"
    assert len(await service.history("s")) == 2
    assert await service.metric('everturn_events_total{outcome="dropped"}') == 1


@pytest.mark.parametrize("body", [b"{", b"[]", b'{"id":"e","data":{"event_type":"Other"}}', b"\xff", b""])
async def test_what_can_never_be_right_is_dropped(service: MemoryService, body: bytes) -> None:
    answer = await service.client.post("/conversations", content=body, headers=CLOUD_EVENT)

    assert (answer.status_code, answer.json()) == (200, {"status": "DROP"})


@pytest.mark.parametrize(
    "content_type", [None, "text/plain", "application/x-www-form-urlencoded", "multipart/form-data"]
)
@pytest.mark.parametrize("path", ["/conversations", "/conversations/dead-letters"])
async def test_an_event_that_a_page_could_send_is_refused(
    service: MemoryService, path: str, content_type: str | None
) -> None:
    headers = {"content-type": content_type} if content_type else {}

    answer = await service.client.post(path, content=json.dumps(event("t1", 1)).encode(), headers=headers)

    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "content-type")
    assert await service.history("s") == []


async def test_an_event_far_ahead_of_its_session_is_dropped_and_the_next_one_is_the_last(
    service: MemoryService, caplog: pytest.LogCaptureFixture
) -> None:
    await service.send(event("t1", 1))

    assert await service.send(event("t9", 10**12, user_message="canary")) == "DROP"
    assert await service.send(event("t2", 2)) == "SUCCESS"

    assert [entry["content"] for entry in await service.history("s")][-1] == "reply of t2"
    assert "canary" not in caplog.text


async def test_a_reply_of_a_mebibyte_is_stored(service: MemoryService) -> None:
    reply = "é" * 1_048_576

    assert await service.send(event("t1", 1, assistant_reply=reply)) == "SUCCESS"
    assert (await service.history("s"))[1]["content"] == reply


async def test_a_window_is_the_last_turns_that_fit_with_their_places(service: MemoryService) -> None:
    for number in (1, 2, 3):
        await service.send(event(f"t{number}", number, user_message="x" * 50, assistant_reply="y" * 50))

    answer = (await service.client.get("/conversations/s?window_chars=250")).json()

    assert [(entry["turn_id"], entry["sequence"], entry["role"]) for entry in answer["history"]] == [
        ("t2", 2, "user"),
        ("t2", 2, "assistant"),
        ("t3", 3, "user"),
        ("t3", 3, "assistant"),
    ]
    assert answer["last_sequence"] == 3
    assert answer["truncated"]


async def test_a_window_that_is_the_whole_conversation_says_so(service: MemoryService) -> None:
    await service.send(event("t1", 1))

    answer = (await service.client.get("/conversations/s?window_chars=250")).json()

    assert not answer["truncated"]


async def test_a_window_can_be_asked_for_as_its_owner_alone(service: MemoryService) -> None:
    await service.send(event("t1", 1))

    mine = await service.client.get("/conversations/s?window_chars=100&user_id=junaid")
    anothers = await service.client.get("/conversations/s?window_chars=100&user_id=bob")

    assert mine.status_code == 200
    assert anothers.status_code == 403


async def test_the_window_of_an_unknown_conversation_is_empty(service: MemoryService) -> None:
    answer = await service.client.get("/conversations/nobody?window_chars=10")

    assert answer.json() == {"history": [], "last_sequence": 0, "truncated": False}


@pytest.mark.parametrize("chars", ["-1", "many", ""])
async def test_a_window_of_no_size_is_422(service: MemoryService, chars: str) -> None:
    assert (await service.client.get(f"/conversations/s?window_chars={chars}")).status_code == 422


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/memories/ann/initialize", 405),
        ("POST", "/memories/ann", 405),
        ("POST", "/conversations/s", 405),
        ("GET", "/conversations", 405),
        ("GET", "/memories", 404),
        ("GET", "/conversations/a/b", 404),
    ],
)
async def test_unknown_routes_and_methods_are_problems(
    service: MemoryService, method: str, path: str, status: int
) -> None:
    answer = await service.client.request(method, path)

    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"


async def test_the_service_is_ready_while_its_store_can_be_read(service: MemoryService) -> None:
    assert (await service.client.get("/readyz")).json() == {"status": "ok"}


async def test_the_subscription_names_its_dead_letters(service: MemoryService) -> None:
    subscriptions = (await service.client.get("/dapr/subscribe")).json()

    assert subscriptions == [
        {
            "pubsubname": PUBSUB_NAME,
            "topic": CONVERSATIONS_TOPIC,
            "route": "/conversations",
            "deadLetterTopic": DEAD_LETTERS_TOPIC,
        },
        {"pubsubname": PUBSUB_NAME, "topic": DEAD_LETTERS_TOPIC, "route": "/conversations/dead-letters"},
    ]


async def test_a_published_event_arrives_and_a_poison_one_is_counted_in_the_dead_letters(
    service: MemoryService,
) -> None:
    await service.dapr.publish(PUBSUB_NAME, CONVERSATIONS_TOPIC, event("poison", 1, event_type="Other"))
    await service.dapr.publish(PUBSUB_NAME, CONVERSATIONS_TOPIC, event("t1", 1))

    async def both_arrived() -> bool:
        return await service.metric("everturn_dead_letters_total") == 1 and len(await service.history("s")) == 2

    await service.until(both_arrived)


async def test_a_fact_of_one_session_is_in_the_summary_after_many_turns_of_another(service: MemoryService) -> None:
    await service.send(event("a1", 1, session_id="a", user_message="I live in Karachi."))
    await service.until_summarised()

    for number in range(1, 21):
        await service.send(event(f"b{number}", number, session_id="b", user_message=f"Good day number {number}!"))
    await service.until_summarised()

    assert "Karachi" in await service.summary("junaid")


async def test_turns_that_come_fast_are_summarised_together(service: MemoryService) -> None:
    for number in range(1, 6):
        await service.send(event(f"t{number}", number))

    await service.until_summarised()

    assert await service.metric('everturn_summaries_total{outcome="refreshed"}') == 1


async def test_an_event_that_comes_again_starts_no_second_summary(service: MemoryService) -> None:
    await service.send(event("t1", 1))
    await service.until_summarised()

    await service.send(event("t1", 1))
    await service.until_summarised()

    assert len(await service.summaries()) == 1


async def test_more_turns_than_one_summary_takes_get_into_the_next(service: MemoryService) -> None:
    for number in range(1, 26):
        await service.send(event(f"t{number}", number, user_message=f"My number{number} is {number}."))

    await service.until_summarised()

    # One call takes eight turns or, if more wait, up to twenty.
    assert 2 <= await service.metric('everturn_summaries_total{outcome="refreshed"}') <= 4
    assert "number25" in await service.summary("junaid")


async def test_a_store_that_is_away_is_a_retry_a_503_and_no_empty_answer(service: MemoryService) -> None:
    await service.send(event("t1", 1))
    service.sidecar.is_away = True

    answers = [await service.client.get(path) for path in ("/memories/junaid", "/conversations/s", "/readyz")]
    status = await service.send(event("t2", 2))

    assert [answer.status_code for answer in answers] == [503, 503, 503]
    assert [answer.headers["retry-after"] for answer in answers] == ["1", "1", "1"]
    assert status == "RETRY"
    assert (await service.client.get("/healthz")).status_code == 200


async def test_no_text_of_a_message_is_in_a_log(service: MemoryService, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("DEBUG"):
        await service.send(event("t1", 1, user_message="canary", assistant_reply="canary"))
        await service.send(event("t1", 1, user_message="canary", event_type="canary"))
        await service.send(event("t2", 2, user_message="canary", user_id="other"))
        await service.client.post("/memories/u/initialize", json={"name": "canary"})
        await service.until_summarised()

    ours = [str(record.__dict__) for record in caplog.records if record.name.startswith("everturn")]
    assert ours
    assert not [record for record in ours if "canary" in record]


async def test_a_summary_that_was_to_come_comes_after_a_restart(tmp_path: Path) -> None:
    async with memory_service(tmp_path) as before:
        await before.send(event("t1", 1, user_message="My name is Junaid and I live in Karachi."))

    async with memory_service(tmp_path) as after:
        await after.until_summarised()

        assert "Karachi" in await after.summary("junaid")
        assert len(await after.history("s")) == 2


async def test_a_model_that_is_away_delays_the_summary_and_nothing_else(tmp_path: Path) -> None:
    away = [ConnectionError("away") for _ in range(8)]
    model = ScriptedModel([*away, [assistant_message("He lives in Karachi.")]])
    async with memory_service(tmp_path, model=model) as service:
        assert await service.send(event("t1", 1)) == "SUCCESS"
        await service.until_summarised()

        assert await service.summary("junaid") == "He lives in Karachi."
        assert await service.metric('everturn_summaries_total{outcome="failed"}') == 8


async def test_with_a_token_set_every_route_needs_it_and_events_still_arrive(tmp_path: Path) -> None:
    settings = Settings(_env_file=None, app_api_token=SecretStr("canary"))
    async with memory_service(tmp_path, settings) as service:
        paths = ("/", "/memories/u", "/conversations/s", "/metrics", "/dapr/subscribe", "/healthz", "/readyz")
        statuses = [(await service.client.get(path)).status_code for path in paths]
        posted = await service.client.post("/conversations", json=event("t1", 1))
        service.client.headers["dapr-api-token"] = "canary"
        await service.dapr.publish(PUBSUB_NAME, CONVERSATIONS_TOPIC, event("t2", 2))

        async def arrived() -> bool:
            return bool(await service.history("s"))

        await service.until(arrived)
        history = await service.history("s")

    assert statuses == [401, 401, 401, 401, 401, 200, 200]
    assert posted.status_code == 401
    assert history[0]["content"] == "message of t2"


def test_importing_the_app_needs_no_settings_no_key_and_no_sidecar(tmp_path: Path) -> None:
    program = "import sys, everturn.memory.app; print('agents' in sys.modules)"

    done = subprocess.run(
        [sys.executable, "-c", program],
        env={"EVERTURN_CHAT_PORT": "wrong", "PYTHONPATH": "src"},
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stdout == "False\n"


def test_a_wrong_setting_ends_the_start_with_one_line(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "uvicorn", "everturn.memory.app:app", "--port", "0"],
        env={"EVERTURN_CHAT_PORT": "wrong", "PYTHONPATH": "src"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 2
    assert "EVERTURN_CHAT_PORT" in done.stderr
    assert len(done.stderr.splitlines()) == 1

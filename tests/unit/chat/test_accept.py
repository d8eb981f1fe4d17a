"""Idempotency keys: which bodies are the same, which keys differ."""

import asyncio
from typing import Any

from everturn.chat.accept import Claim, Claims, claim_key, fingerprint
from everturn.contracts.chat import Message
from everturn.dapr.client import DaprClient, Save


def print_of(**body: Any) -> str:
    return fingerprint("ann", Message.model_validate({"text": "hi", **body}))


def test_absent_and_null_and_empty_are_the_same_body() -> None:
    assert print_of() == print_of(metadata=None) == print_of(metadata={}) == print_of(tags=[]) == print_of(tags=None)


def test_the_clients_timestamp_does_not_make_another_body() -> None:
    assert print_of(metadata={"timestamp": "2026-01-01T00:00:00Z"}) == print_of()


def test_text_session_and_tags_make_another_body() -> None:
    prints = {print_of(), print_of(text="hi "), print_of(metadata={"session_id": "s"}), print_of(tags=["a"])}

    assert len(prints) == 4


def test_keys_count_per_user() -> None:
    assert claim_key("ann", "k") != claim_key("bob", "k")


def test_user_and_key_cannot_be_confused() -> None:
    assert claim_key("a:b", "c") != claim_key("a", "b:c")


def claim(turn_id: str, accepted_at: str = "2026-01-01T12:00:00.000Z") -> Claim:
    return Claim(
        turn_id=turn_id, user_id="ann", session_id="s", fingerprint="f", text="hi", tags=["a"], accepted_at=accepted_at
    )


async def test_a_release_touches_no_claim_of_another_request(dapr: DaprClient) -> None:
    claims = Claims(dapr, ttl_s=60)
    await claims.take("claim:k", claim("mine"))
    void = await claims.find("claim:k")
    await claims.take("claim:k", claim("another"), void=void)

    await claims.release("claim:k", claim("mine"))

    found = await claims.find("claim:k")
    assert found is not None
    assert (found.value.turn_id, found.value.released) == ("another", False)


async def test_of_two_claims_at_once_both_requests_hear_of_the_same(dapr: DaprClient) -> None:
    claims = Claims(dapr, ttl_s=60)

    held = await asyncio.gather(*(claims.take("claim:k", claim(name)) for name in ("one", "two")))

    assert held[0] == held[1]


async def test_a_void_claim_is_replaced_by_one_of_two_requests(dapr: DaprClient) -> None:
    claims = Claims(dapr, ttl_s=60)
    await claims.take("claim:k", claim("old"))
    await claims.release("claim:k", claim("old"))
    void = await claims.find("claim:k")

    held = await asyncio.gather(*(claims.take("claim:k", claim(name), void=void) for name in ("one", "two")))

    assert held[0] == held[1]
    assert held[0].turn_id in ("one", "two")


async def test_a_claim_of_the_release_before_is_read(dapr: DaprClient) -> None:
    value = {**claim("t").stored()}
    del value["version"]
    await dapr.save_state(Save("claim:k", value))

    found = await Claims(dapr, ttl_s=60).find("claim:k")

    assert found is not None
    assert found.value == claim("t")

"""Idempotency keys: which bodies are the same, which keys differ."""

from typing import Any

from everturn.chat.claims import claim_key, fingerprint
from everturn.contracts.chat import Message


def print_of(**body: Any) -> str:
    return fingerprint(Message.model_validate({"user_id": "ann", "text": "hi", **body}))


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

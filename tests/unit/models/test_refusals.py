"""What an endpoint says to a wrong request is shown, and nothing of what it was sent."""

import json

import pytest

from everturn.models.refusals import words_of

SECRET = "canary-4711 lives in Karachi, pin 42"
ASKED = json.dumps(
    {
        "model": "llama",
        "messages": [
            {"role": "system", "content": "The user is called Junaid."},
            {"role": "user", "content": [{"type": "text", "text": SECRET}]},
        ],
    }
).encode()
TOO_LONG = "This model's maximum context length is 8192 tokens, which you exceeded."


@pytest.mark.parametrize(
    "answer",
    [
        {"error": {"message": TOO_LONG, "type": "invalid_request_error"}},
        [{"error": {"code": 400, "message": TOO_LONG, "status": "INVALID_ARGUMENT"}}],
        {"error": TOO_LONG},
        {"message": TOO_LONG},
        {"detail": TOO_LONG},
    ],
)
def test_the_sentence_of_an_endpoint_is_found_in_each_of_the_usual_shapes(answer: object) -> None:
    assert words_of(json.dumps(answer).encode(), ASKED, None) == TOO_LONG


@pytest.mark.parametrize(
    "body", [b"", b"no", b"[]", b"{}", b"[" * 100_000, b'{"error": 7}', b'{"error": {}}', b'{"detail": [{"loc": 1}]}']
)
def test_an_endpoint_without_a_sentence_says_nothing(body: bytes) -> None:
    assert words_of(body, ASKED, None) == ""


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        (f"bad content: {SECRET}", "bad content: … in …"),
        ("bad content: 'CANARY-47", "bad content: '…"),
        ("the pin 42 is wrong", "the … is wrong"),
        ("Junaid is not allowed", "… is not allowed"),
        ("key sk-secret-1 is not allowed", "key … is not allowed"),
        ("Bad \u00fcber \u79d8\u5bc6 content\u202e", "Bad … ber … content …"),
    ],
)
def test_what_was_sent_and_the_key_are_not_repeated(said: str, shown: str) -> None:
    assert words_of(json.dumps({"error": said}).encode(), ASKED, "sk-secret-1") == shown


def test_a_long_sentence_is_cut() -> None:
    assert len(words_of(json.dumps({"error": "word " * 1_000}).encode(), ASKED, None)) <= 300

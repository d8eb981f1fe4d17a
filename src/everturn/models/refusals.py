"""What an endpoint says to a request that it refuses, less all that may be the prompt, the conversation or the key.

An endpoint may repeat what it was sent. So only plain words of its sentence are shown, and none that occurs in what was
sent: a word of the provider that happens to be in the conversation is lost as well, the reason can still be read.
"""

import json
import re
from collections.abc import Iterator
from typing import Any

MAX_ERROR_BYTES = 64 * 1024
_MOST_CHARS = 300
_WORD = re.compile(r"[A-Za-z0-9_]+")
# Words that say nothing of what anybody wrote.
_PLAIN = re.compile(
    "a|an|and|are|as|at|be|by|can|cannot|do|does|for|from|has|have|in|is|it|its|may|must|no|not|of|on|only|or|s|so|t|"
    "than|that|the|this|to|too|was|which|with|you|your"
)
# A shorter word is only looked for as a whole, if it is no number: its letters are in many others.
_WHOLE_BELOW = 4
_HIDDEN = "…"
_NOT_PLAIN, _HIDDEN_AGAIN = re.compile(r"[^\x20-\x7e]+"), re.compile(rf"{_HIDDEN}(?:[^\w{_HIDDEN}]*{_HIDDEN})+")


def words_of(body: bytes, asked: bytes, key: str | None) -> str:
    """The sentence in the endpoint's error `body`, without what is in the request `asked` or in `key`; may be empty."""
    sentence = _sentence(body)
    if not sentence:
        return ""
    sent = " ".join([*_texts(json.loads(asked)["messages"]), key or ""]).lower()
    whole = frozenset(_WORD.findall(sent))

    def shown(found: re.Match[str]) -> str:
        word = found[0].lower()
        was_sent = word in whole if len(word) < _WHOLE_BELOW and word.isalpha() else word in sent
        return _HIDDEN if was_sent and not _PLAIN.fullmatch(word) else found[0]

    words = _WORD.sub(shown, _NOT_PLAIN.sub(f" {_HIDDEN} ", sentence))
    return " ".join(_HIDDEN_AGAIN.sub(_HIDDEN, words).split())[:_MOST_CHARS]


def _sentence(body: bytes) -> str:
    """As OpenAI, Gemini (in a list), Ollama (a plain `error`), Mistral (`message`) and FastAPI (`detail`) have it."""
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        return ""
    if isinstance(answer, list) and answer:
        answer = answer[0]
    if isinstance(answer, dict):
        answer = answer.get("error", answer)
    if isinstance(answer, dict):
        answer = answer.get("message") or answer.get("detail")
    return answer[:_MOST_CHARS] if isinstance(answer, str) else ""


def _texts(value: Any) -> Iterator[str]:
    match value:
        case str():
            yield value
        case list():
            for item in value:
                yield from _texts(item)
        case dict():
            for item in value.values():
                yield from _texts(item)

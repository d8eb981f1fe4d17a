"""Texts for a model and of one: data inside a prompt, texts that are cut to fit, and what may be kept as a reply.

Data is one JSON object between two lines that nothing in the data can imitate. What users and programs have written
goes in there, so that a model can tell it from its instructions.
"""

import json
import re
from collections.abc import Mapping
from typing import Any

from everturn.contracts.fields import without_lone_surrogates
from everturn.errors import TransientError
from everturn.models.faults import MAX_REPLY_BYTES, too_large

FENCE_OPEN = "<data>"
FENCE_CLOSE = "</data>"
CUT_MARK = "\n[… cut …]\n"

_FENCED = re.compile(rf"^{FENCE_OPEN}\n(.*)\n{FENCE_CLOSE}$", re.MULTILINE)
_ESCAPED = {char: f"\\u{ord(char):04x}" for char in "<>\x85\u2028\u2029"}


def fence(data: Mapping[str, object]) -> str:
    """`data` as three lines: the opening mark, one line of JSON, the closing mark.

    JSON escapes line ends. Angle brackets are escaped here, and what Unicode takes for an end of a line (RFC 8259
    section 7 allows it anywhere in a string), so the closing mark cannot occur inside, and not on a line of its own.
    """
    line = json.dumps(data, ensure_ascii=False)
    for char, escaped in _ESCAPED.items():
        line = line.replace(char, escaped)
    return f"{FENCE_OPEN}\n{line}\n{FENCE_CLOSE}"


def unfence(prompt: str) -> dict[str, Any]:
    """The object in the first fence of `prompt`; empty if there is none."""
    found = _FENCED.search(prompt)
    data = json.loads(found.group(1)) if found else {}
    return data if isinstance(data, dict) else {}


def excerpt(text: str, chars: int) -> str:
    """`text`, cut in the middle so that it has at most `chars` characters, with a mark in place of what is missing.

    Beginning and end stay: people put the question at one of them.
    """
    if len(text) <= chars:
        return text
    kept = chars - len(CUT_MARK)
    if kept <= 0:
        return text[:chars]
    tail = kept // 2
    return text[: kept - tail] + CUT_MARK + (text[-tail:] if tail else "")


def checked_reply(text: str) -> str:
    """`text` with broken Unicode replaced by U+FFFD, and NUL too, which many stores refuse.

    Raises TransientError (`empty_reply`) for a blank one, TerminalError (`reply_too_large`) for one over 1 MiB.
    """
    if not text.strip():
        raise TransientError("the model gave an empty reply", kind="empty_reply")
    clean = without_lone_surrogates(text).replace("\x00", "\ufffd")
    if len(clean) > MAX_REPLY_BYTES or len(clean.encode()) > MAX_REPLY_BYTES:
        raise too_large()
    return clean

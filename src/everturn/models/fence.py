"""Data inside a prompt: one JSON object between two lines that nothing in the data can imitate.

Whatever users and programs have written goes in here, so that a model can tell it from its instructions.
"""

import json
import re
from collections.abc import Mapping
from typing import Any

FENCE_OPEN = "<data>"
FENCE_CLOSE = "</data>"

_FENCED = re.compile(rf"^{FENCE_OPEN}\n(.*)\n{FENCE_CLOSE}$", re.MULTILINE)


def fence(data: Mapping[str, object]) -> str:
    """`data` as three lines: the opening mark, one line of JSON, the closing mark.

    JSON escapes line ends, and angle brackets are escaped here (RFC 8259 section 7 allows it anywhere in a string), so
    the closing mark cannot occur inside.
    """
    line = json.dumps(data, ensure_ascii=False).replace("<", "\\u003c").replace(">", "\\u003e")
    return f"{FENCE_OPEN}\n{line}\n{FENCE_CLOSE}"


def unfence(prompt: str) -> dict[str, Any]:
    """The object in the first fence of `prompt`; empty where there is none."""
    found = _FENCED.search(prompt)
    data = json.loads(found.group(1)) if found else {}
    return data if isinstance(data, dict) else {}

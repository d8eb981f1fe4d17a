"""What a reply of a model must be before it is kept: not empty, not too long, valid Unicode."""

from everturn.contracts.text import without_lone_surrogates
from everturn.errors import TerminalError, TransientError

# contracts.md, "Model faults": a reply has at most 1 MiB.
MAX_REPLY_BYTES = 1024 * 1024


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


def too_large() -> TerminalError:
    """The error for a reply over the limit."""
    return TerminalError("the model's reply is larger than 1 MiB", kind="reply_too_large")

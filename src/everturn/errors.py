"""The one tree of errors, split by what the caller does about them.

`TransientError`: try again later. `TerminalError`: trying again changes nothing. Messages name the thing and the
value, are safe to show to a user and to log, and never carry message text, prompts or keys.
"""


class EverturnError(Exception):
    """Root of all errors that Everturn raises on purpose.

    `kind` is a stable snake_case word that programs can test for; the message is one plain sentence for people.
    """

    kind = "error"

    def __init__(self, message: str, *, kind: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        if kind is not None:
            self.kind = kind


class TransientError(EverturnError):
    """The same call may succeed later.

    `retry_after_s` is the number of seconds that the other side asked to be left alone (Retry-After, RFC 9110
    section 10.2.3), or None if it did not say.
    """

    kind = "unavailable"

    def __init__(self, message: str, *, kind: str | None = None, retry_after_s: float | None = None) -> None:
        super().__init__(message, kind=kind)
        self.retry_after_s = retry_after_s


def is_transient_status(status: int) -> bool:
    """Whether a call that was answered with this HTTP status may succeed later (contracts.md, "The turn").

    408 timeout, 409 conflict, 425 too early, 429 too many requests; and every 5xx.
    """
    return status in (408, 409, 425, 429) or status >= 500


class TerminalError(EverturnError):
    """The same call will fail again: do not retry."""

    kind = "refused"


class ConflictError(EverturnError):
    """Somebody else changed the thing first (an ETag did not match, a key was claimed already): read, decide again."""

    kind = "conflict"


class SettingError(TerminalError):
    """A setting is missing or wrong; the process cannot start (exit code 2)."""

    kind = "wrong_setting"


class StartError(TerminalError):
    """The process cannot start for a reason outside its settings: a taken port, a locked folder (exit code 1)."""

    kind = "cannot_start"

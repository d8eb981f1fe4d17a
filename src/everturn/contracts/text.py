"""Rules for text that clients send: what can be stored and given back exactly."""


def text_fault(value: str) -> str | None:
    """Say why `value` cannot be kept exactly, as the end of a sentence; None if it can.

    NUL is refused by many stores, a lone surrogate has no UTF-8 form (RFC 3629 section 3).
    """
    if "\x00" in value:
        return "must not contain NUL characters"
    try:
        value.encode()
    except UnicodeEncodeError:
        return "must not contain lone surrogates"
    return None


def without_lone_surrogates(value: str) -> str:
    """`value` with every lone surrogate replaced by U+FFFD, for text of a model that must be kept anyhow."""
    return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")

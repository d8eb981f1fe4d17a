"""Cutting a text that is too long for a prompt."""

CUT_MARK = "\n[… cut …]\n"


def excerpt(text: str, chars: int) -> str:
    """`text`, cut in the middle so that it has at most `chars` characters, with a mark where something is missing.

    Beginning and end stay: people put the question at one of them.
    """
    if len(text) <= chars:
        return text
    kept = chars - len(CUT_MARK)
    if kept <= 0:
        return text[:chars]
    tail = kept // 2
    return text[: kept - tail] + CUT_MARK + (text[-tail:] if tail else "")

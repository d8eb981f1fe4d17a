"""What the values of headers mean."""


def header_text(value: str) -> str:
    """`value`, which servers hand on as Latin-1, as its sender meant it: UTF-8 where it is that.

    The bytes above ASCII have no meaning of their own in a header (RFC 9110 section 5.5), and clients send UTF-8.
    """
    try:
        return value.encode("latin-1").decode("utf-8")
    except UnicodeError:
        return value

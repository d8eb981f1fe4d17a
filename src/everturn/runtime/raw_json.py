"""Reading a JSON envelope without touching what is in it.

State values and event data pass through the runtime as the bytes that the client sent: the reader walks the envelope,
and gives each part as text or decoded, as asked.
"""

import re
from collections.abc import Iterator
from json import JSONDecodeError, JSONDecoder
from json.decoder import scanstring  # type: ignore[attr-defined]
from typing import Any

_SPACE = re.compile(r"[ \t\n\r]*")
# What stands before a value of an object, where the name has no escapes.
_PLAIN_NAME = re.compile(r'"([^"\\\x00-\x1f]*)"[ \t\n\r]*:[ \t\n\r]*')
_COLON = re.compile(r"[ \t\n\r]*:[ \t\n\r]*")
# The beginning of an object or array, with its end where it is empty; and what stands after each of its values.
_BEGIN = {"{": re.compile(r"\{[ \t\n\r]*(\}[ \t\n\r]*)?"), "[": re.compile(r"\[[ \t\n\r]*(\][ \t\n\r]*)?")}
_AFTER = re.compile(r"[ \t\n\r]*([,}\]])[ \t\n\r]*")


class JsonError(ValueError):
    """The text is no JSON (RFC 8259), or not of the shape that was asked for."""


def _refuse_constant(name: str) -> None:
    raise JsonError(f"{name} is no JSON")


# Numbers stay text: nothing is rounded, and nothing is too long.
_SKIP = JSONDecoder(parse_float=str, parse_int=str, parse_constant=_refuse_constant)
_DECODE = JSONDecoder(parse_constant=_refuse_constant)


class JsonReader:
    """A cursor over `body`. While `fields` or `elements` runs, the caller reads exactly one value a step.

    Every method raises JsonError.
    """

    __slots__ = ("_at", "_text")

    def __init__(self, body: bytes) -> None:
        try:
            self._text = body.decode("utf-8")
        except UnicodeDecodeError as error:
            raise JsonError("not UTF-8") from error
        self._at = 0
        self._skip_space()

    def fields(self) -> Iterator[str]:
        """The names of the object at the cursor, each with the cursor on its value."""
        goes_on = self._begins("{")
        while goes_on:
            plain = _PLAIN_NAME.match(self._text, self._at)
            if plain is None:
                yield self._escaped_name()
            else:
                self._at = plain.end()
                yield plain[1]
            goes_on = self._goes_on("}")

    def elements(self) -> Iterator[None]:
        """One step for each element of the array at the cursor, with the cursor on it."""
        goes_on = self._begins("[")
        while goes_on:
            yield
            goes_on = self._goes_on("]")

    def raw(self) -> str:
        """The value at the cursor, as it stands in the text."""
        start = self._at
        self._scan(_SKIP)
        return self._text[start : self._at]

    def decoded(self) -> Any:
        """The value at the cursor."""
        return self._scan(_DECODE)

    def finish(self) -> None:
        """Nothing may follow."""
        self._skip_space()
        if self._at != len(self._text):
            raise JsonError(f"more text at {self._at}")

    @property
    def starts_object(self) -> bool:
        return self._text.startswith("{", self._at)

    def _scan(self, decoder: JSONDecoder) -> Any:
        try:
            value, self._at = decoder.raw_decode(self._text, self._at)
        except JSONDecodeError as error:
            raise JsonError(error.msg) from error
        except (RecursionError, ValueError) as error:
            raise JsonError("nested too deep, or a number too long") from error
        return value

    def _escaped_name(self) -> str:
        if not self._text.startswith('"', self._at):
            raise JsonError(f'" expected at {self._at}')
        try:
            name, end = scanstring(self._text, self._at + 1, True)
        except JSONDecodeError as error:
            raise JsonError(error.msg) from error
        colon = _COLON.match(self._text, end)
        if colon is None:
            raise JsonError(f": expected at {end}")
        self._at = colon.end()
        return str(name)

    def _begins(self, bracket: str) -> bool:
        """Go into the object or array at the cursor; whether there is something in it."""
        found = _BEGIN[bracket].match(self._text, self._at)
        if found is None:
            raise JsonError(f"{bracket} expected at {self._at}")
        self._at = found.end()
        return found[1] is None

    def _goes_on(self, bracket: str) -> bool:
        """Go to what follows after a value; whether it is another value, and not the closing `bracket`."""
        found = _AFTER.match(self._text, self._at)
        if found is None or found[1] not in (",", bracket):
            raise JsonError(f", or {bracket} expected at {self._at}")
        self._at = found.end()
        return found[1] == ","

    def _skip_space(self) -> None:
        found = _SPACE.match(self._text, self._at)
        assert found is not None
        self._at = found.end()


def raw_object(body: bytes) -> dict[str, str]:
    """The fields of the object that `body` is, each value as it stands there (of a repeated name the last).

    Raises JsonError.
    """
    reader = JsonReader(body)
    fields = {name: reader.raw() for name in reader.fields()}
    reader.finish()
    return fields

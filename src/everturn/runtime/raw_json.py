"""Reading a JSON envelope without touching what is in it.

State values and event data pass through the runtime as the bytes that the client sent: the reader walks the envelope,
and gives each part as text or decoded, as asked.
"""

import re
from collections.abc import Iterator
from json import JSONDecodeError, JSONDecoder
from json.decoder import scanstring  # type: ignore[attr-defined]
from typing import Any

# What stands before a value of an object, where the name has no escapes.
_PLAIN_NAME = re.compile(r'"([^"\\\x00-\x1f]*)"[ \t\n\r]*:[ \t\n\r]*')
_SPACE = re.compile(r"[ \t\n\r]*")


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

    __slots__ = ("_at", "_end", "_text")

    def __init__(self, body: bytes) -> None:
        try:
            self._text = body.decode("utf-8")
        except UnicodeDecodeError as error:
            raise JsonError("not UTF-8") from error
        self._at = self._end = 0
        self._skip_space()

    def fields(self) -> Iterator[str]:
        """The names of the object at the cursor, each with the cursor on its value."""
        self._expect("{")
        if self._accept("}"):
            return
        while True:
            plain = _PLAIN_NAME.match(self._text, self._at)
            if plain is None:
                name = self._escaped_name()
            else:
                name, self._at = plain[1], plain.end()
            yield name
            if not self._accept(","):
                break
        self._expect("}")

    def _escaped_name(self) -> str:
        self._expect('"', skip=False)
        try:
            name, self._at = scanstring(self._text, self._at, True)
        except JSONDecodeError as error:
            raise JsonError(error.msg) from error
        self._skip_space()
        self._expect(":")
        return str(name)

    def elements(self) -> Iterator[None]:
        """One step for each element of the array at the cursor, with the cursor on it."""
        self._expect("[")
        if self._accept("]"):
            return
        while True:
            yield
            if not self._accept(","):
                break
        self._expect("]")

    def raw(self) -> str:
        """The value at the cursor, as it stands in the text."""
        start = self._at
        self._scan(_SKIP)
        return self._text[start : self._end]

    def decoded(self) -> Any:
        """The value at the cursor."""
        return self._scan(_DECODE)

    def finish(self) -> None:
        """Nothing may follow."""
        if self._at != len(self._text):
            raise JsonError(f"more text at {self._at}")

    @property
    def starts_object(self) -> bool:
        return self._text.startswith("{", self._at)

    def _scan(self, decoder: JSONDecoder) -> Any:
        try:
            value, self._end = decoder.raw_decode(self._text, self._at)
        except JSONDecodeError as error:
            raise JsonError(error.msg) from error
        except (RecursionError, ValueError) as error:
            raise JsonError("nested too deep, or a number too long") from error
        self._at = self._end
        self._skip_space()
        return value

    def _expect(self, char: str, *, skip: bool = True) -> None:
        if not self._text.startswith(char, self._at):
            raise JsonError(f"{char} expected at {self._at}")
        self._at += 1
        if skip:
            self._skip_space()

    def _accept(self, char: str) -> bool:
        if not self._text.startswith(char, self._at):
            return False
        self._at += 1
        self._skip_space()
        return True

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

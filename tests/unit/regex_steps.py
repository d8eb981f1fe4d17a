"""How many steps a regular expression takes: a backtracking matcher over Python's own parse of a pattern, that counts.

It tries what `re` tries, in the same order, one character at a time; `re` may be quicker, by a constant factor.
"""

import importlib
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

_parser: Any = importlib.import_module("re._parser")
_compiler: Any = importlib.import_module("re._compiler")
_ops: Any = importlib.import_module("re._constants")

_ONE_CHARACTER = frozenset({_ops.LITERAL, _ops.NOT_LITERAL, _ops.ANY, _ops.IN})
_REPEATS = frozenset({_ops.MAX_REPEAT, _ops.MIN_REPEAT, _ops.POSSESSIVE_REPEAT})
_Then = Callable[[int], int | None]
_Nodes = Sequence[Any]


class TooManySteps(Exception):
    """It would take too long to count them all."""


class Steps:
    """`Steps(pattern, text)` matches as `pattern.finditer(text)` does; `taken` are its steps, `spans` what it found.

    Raises TooManySteps beyond `most`.
    """

    def __init__(self, pattern: "re.Pattern[str]", text: str, most: int = 300_000) -> None:
        self.taken, self.spans, self._most = 0, list[tuple[int, int]](), most
        self._text = text
        nodes, at = _parsed(pattern.pattern, pattern.flags), 0
        with _deep():
            for start in range(len(text) + 1):
                if start < at:
                    continue
                end = self._match(nodes, start, pattern.flags, lambda place: place)
                if end is not None and end > start:
                    self.spans.append((start, end))
                    at = end

    def _step(self) -> None:
        self.taken += 1
        if self.taken > self._most:
            raise TooManySteps

    def _match(self, nodes: _Nodes, at: int, flags: int, then: _Then) -> int | None:
        """Where a match of `nodes` from `at`, and of what comes `then`, ends."""
        if not nodes:
            return then(at)
        (op, value), rest = nodes[0], nodes[1:]
        self._step()

        def go_on(place: int) -> int | None:
            return self._match(rest, place, flags, then)

        if op in _ONE_CHARACTER:
            return go_on(at + 1) if self._is_at(nodes[0], at, flags) else None
        if op in _REPEATS:
            return self._repeat(op, value, at, flags, go_on)
        match op:
            case _ops.BRANCH:
                ends = (self._match(branch, at, flags, go_on) for branch in value[1])
                return next((end for end in ends if end is not None), None)
            case _ops.SUBPATTERN:
                _, added, removed, inner = value
                return self._match(inner, at, (flags | added) & ~removed, go_on)
            case _ops.ATOMIC_GROUP:
                end = self._match(value, at, flags, lambda place: place)
                return None if end is None else go_on(end)
            case _ops.ASSERT | _ops.ASSERT_NOT if value[0] > 0:
                found = self._match(value[1], at, flags, lambda place: place) is not None
                return go_on(at) if found is (op is _ops.ASSERT) else None
            case _ops.AT | _ops.ASSERT | _ops.ASSERT_NOT:  # a look back has a fixed width
                return go_on(at) if _compiled(nodes[0], flags).match(self._text, at) else None
            case _:
                raise NotImplementedError(f"{op} is not counted yet")

    def _repeat(self, op: Any, value: Any, at: int, flags: int, then: _Then) -> int | None:
        least, most, inner = value
        if op is _ops.POSSESSIVE_REPEAT:
            end = self._repeat(_ops.MAX_REPEAT, value, at, flags, lambda place: place)
            return None if end is None else then(end)
        if len(inner) == 1 and inner[0][0] in _ONE_CHARACTER:
            return self._repeat_character(op, value, at, flags, then)

        def again(count: int, place: int) -> int | None:
            def once_more(end: int) -> int | None:
                return again(count + 1, end) if end > place or count < least else None

            for is_more in (True, False) if op is _ops.MAX_REPEAT else (False, True):
                end = None
                if is_more and count < most:
                    end = self._match(inner, place, flags, once_more)
                elif not is_more and count >= least:
                    end = then(place)
                if end is not None:
                    return end
            return None

        return again(0, at)

    def _repeat_character(self, op: Any, value: Any, at: int, flags: int, then: _Then) -> int | None:
        least, most, inner = value
        end, limit = at, min(len(self._text), at + most)
        if op is _ops.MIN_REPEAT:
            while end <= limit:
                if end - at >= least and (found := then(end)) is not None:
                    return found
                if not self._is_at(inner[0], end, flags):
                    return None
                end += 1
            return None
        while end < limit and self._is_at(inner[0], end, flags):
            end += 1
        for place in range(end, at + least - 1, -1):
            self._step()
            if (found := then(place)) is not None:
                return found
        return None

    def _is_at(self, node: Any, at: int, flags: int) -> bool:
        self._step()
        if at >= len(self._text):
            return False
        key = (id(node), flags, self._text[at])
        if key not in _fits:
            _fits[key] = _compiled(node, flags).match(self._text[at]) is not None
        return _fits[key]


@cache
def _parsed(pattern: str, flags: int) -> _Nodes:
    """Kept for good: what is known of a node is kept by its identity."""
    nodes: _Nodes = _parser.parse(pattern, flags).data
    return nodes


# By node, flags and character; by node and flags.
_fits: dict[tuple[int, int, str], bool] = {}
_alone: dict[tuple[int, int], "re.Pattern[str]"] = {}


def _compiled(node: Any, flags: int) -> "re.Pattern[str]":
    """One node as a pattern of its own, with a state of its own: that of its pattern has flags."""
    if (id(node), flags) not in _alone:
        _alone[id(node), flags] = _compiler.compile(_parser.SubPattern(_parser.State(), [node]), flags)
    return _alone[id(node), flags]


@contextmanager
def _deep() -> Iterator[None]:
    """A repeated group is a call in a call."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(100_000)
    try:
        yield
    finally:
        sys.setrecursionlimit(before)

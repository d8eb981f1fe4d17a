"""No regular expression takes more than its share of steps for a longer text, whatever the text is.

`re` cannot be stopped and holds the loop. Counted are the steps that it takes, not the time (`regex_steps`).
"""

import ast
import importlib
import pkgutil
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

import everturn
from tests.unit.regex_steps import Steps, TooManySteps

# Rooms that read what users, models and programs write, or what is near to it.
_ROOMS = ("chat", "contracts", "dapr", "memory", "models", "web")
_CHARS = 150
# What a text is made of. Each is tried as it is and with an end that nothing expects.
_PARTS = (
    *(" ", "\t x", "a", "A", "1", ".", "…", ",", "\u2019", "a. ", "A.", "Dr. ", "A b ", "…a", "a/b ", "a'b ", ", and "),
    *("hi ", "hi i'm bob ", "i am also really ", "my ", "my a is b ", "call me ", "remember that ", "from ", "in a "),
    *('"', "\\", '"a', '\\"', '"":', "[", "{,", ', "'),
    *("what is my ", "what time is it in a/", "i live in a and ", "Ann's name is ", "<data>\n", "application/a+"),
)


def _patterns() -> "Iterator[tuple[str, re.Pattern[str]]]":
    for room in _ROOMS:
        package = importlib.import_module(f"everturn.{room}")
        for module in pkgutil.walk_packages(package.__path__, f"everturn.{room}."):
            for name, value in vars(importlib.import_module(module.name)).items():
                found = value.items() if isinstance(value, dict) else [("", value)]
                for key, each in found:
                    pattern = getattr(each, "__self__", each)  # `fullmatch` of a pattern stands for it
                    if isinstance(pattern, re.Pattern):
                        yield f"{module.name.removeprefix('everturn.')}.{name}{'.' * bool(key)}{key}", _of_text(pattern)


def _of_text(pattern: "re.Pattern[Any]") -> "re.Pattern[str]":
    """A pattern of bytes as one of text: what it does is the same."""
    if isinstance(pattern.pattern, str):
        return pattern
    return _text_patterns.setdefault(pattern, re.compile(pattern.pattern.decode("ascii"), pattern.flags | re.ASCII))


_text_patterns: "dict[re.Pattern[bytes], re.Pattern[str]]" = {}


PATTERNS = {id(pattern): (name, pattern) for name, pattern in _patterns()}


def grows(pattern: "re.Pattern[str]", parts: Sequence[str] = _PARTS) -> list[str]:
    """Those of `parts` of which twice as many take more than three times the steps."""
    return [
        part
        for part in parts
        for end in ("", "\x01")
        if not _steps(pattern, part, end, 2 * _CHARS) <= 3 * _steps(pattern, part, end, _CHARS) < float("inf")
    ]


def _steps(pattern: "re.Pattern[str]", part: str, end: str, chars: int) -> float:
    try:
        return Steps(pattern, (part * chars)[:chars] + end).taken
    except TooManySteps:
        return float("inf")


@pytest.mark.parametrize("pattern", [pytest.param(pattern, id=name) for name, pattern in PATTERNS.values()])
def test_twice_the_text_takes_less_than_three_times_the_steps(pattern: "re.Pattern[str]") -> None:
    assert grows(pattern) == []


@pytest.mark.parametrize(
    "planted", [r"\s+$", r"\s*\S+", r"(?:\W*…)*x", r"(?:a|a.)*!", r"my .*? is .*;", r'(?:[^"]++|"[^"]*+"?)*+,']
)
def test_a_pattern_that_goes_back_again_and_again_is_found(planted: str) -> None:
    assert grows(re.compile(planted, re.DOTALL), [" ", "a", "…", "my a is b "]) != []


@pytest.mark.parametrize("pattern", [pytest.param(pattern, id=name) for name, pattern in PATTERNS.values()])
def test_what_is_counted_finds_what_re_finds(pattern: "re.Pattern[str]") -> None:
    for part in _PARTS:
        text = (part * _CHARS)[:_CHARS] + " my name is Ann, and I live in St. Louis; what time is it in a/b?"

        assert Steps(pattern, text).spans == [found.span() for found in pattern.finditer(text) if found.group()]


def test_every_pattern_has_a_name_of_its_module() -> None:
    """One inside a function would not be looked at."""
    hidden = []
    for room in _ROOMS:
        for file in sorted(Path(everturn.__file__).with_name(room).rglob("*.py")):
            for function in ast.walk(ast.parse(file.read_text("utf-8"))):
                if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
                    hidden += [f"{file.name}: {function.name}" for node in ast.walk(function) if _is_re_call(node)]

    # It compiles the rules of `english.toml`, which are in dictionaries of its module.
    assert hidden == ["language.py: _compiled"]


def _is_re_call(node: ast.AST) -> bool:
    match node:
        case ast.Call(func=ast.Attribute(value=ast.Name(id="re"))):
            return True
    return False

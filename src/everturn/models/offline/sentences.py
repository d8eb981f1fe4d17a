"""Sentences of a text, without a language library."""

import re

# A longer sentence states no fact that we could read, and costs time to look at.
MAX_SENTENCE_CHARS = 500

# The look back keeps a long row of marks from being read again from each of them.
_END = re.compile(r"(?<![.!?…])[.!?…]++[\"')\]]?(?=\s)|[\n;]+")
# A full stop after one of these, or after a single letter, does not end a sentence.
_ABBREVIATIONS = frozenset(
    {"st", "mr", "mrs", "ms", "dr", "prof", "jr", "sr", "vs", "no", "mt", "ft", "ave", "etc", "approx"}
)
_CURLY_APOSTROPHES = str.maketrans({"\u2019": "'", "\u2018": "'", "\u02bc": "'"})


def sentences(text: str) -> list[str]:
    """The sentences of `text`, with their marks and exactly as they were written; none is blank."""
    found, start = [], 0
    for end in _END.finditer(text):
        if end.group() == "." and _is_abbreviation(text[start : end.start()]):
            continue
        found.append(text[start : end.end()])
        start = end.end()
    found.append(text[start:])
    return [sentence.strip(" \t\r\n;") for sentence in found if sentence.strip(" \t\r\n;.")]


def straight(text: str) -> str:
    """`text` with straight apostrophes, of the same length: to look at, not to keep."""
    return text.translate(_CURLY_APOSTROPHES)


def without_stop(value: str) -> str:
    """`value` without the mark that ends its sentence; that of an abbreviation such as `D.C.` stays."""
    bare = value.rstrip().rstrip("!?…,;:").rstrip()
    if bare.endswith("."):
        last_word = bare[:-1].rsplit(None, 1)[-1:]
        if last_word and "." not in last_word[0]:
            bare = bare[:-1].rstrip()
    return bare


def _is_abbreviation(before: str) -> bool:
    last_word = re.split(r"[\s(]", before)[-1].casefold()
    return last_word in _ABBREVIATIONS or (len(last_word) == 1 and last_word.isalpha() and last_word != "i")


def rule(pattern: str) -> re.Pattern[str]:
    """`pattern` without regard to case, each space in it for one to three of any white space."""
    return re.compile(pattern.replace(" ", r"\s{1,3}"), re.IGNORECASE | re.DOTALL)

"""VNN-LIB text to words, with places worked out only when something is wrong.

A word is a parenthesis, a string, a ``|quoted symbol|`` or a run of anything else; comments and white space
vanish.  The grammar is defined by one regular expression.  Nearly every file has neither strings nor quoted
symbols, and there cutting at white space gives the same words three times as fast (20 ms against 60 ms for
1 MB), so that is what happens; a property test keeps the two in step.

Words are plain ``str`` and carry no offsets.  Only an error needs one: it is found by walking the text again
with the regular expression to the word with that number.
"""

from __future__ import annotations

import itertools
import re
from functools import cached_property

from verifier.errors import SpecError

_WORD = re.compile(
    r"""
      ( [()] | [^\s()"|;]+ | "(?:[^"]|"")*" | \|[^|]*\| | ["|] )   # a lone quote is a word, refused later
    | ;[^\r\n]*
    """,
    re.VERBOSE,
)
_COMMENT = re.compile(r";[^\r\n]*")
_LINE_END = re.compile(r"\r\n|\r|\n")

END = ""
"""What stands in ``Words.texts`` behind the last word."""
_LOOK_AHEAD = 8


def split_by_grammar(text: str) -> list[str]:
    """The words of ``text`` by the regular expression alone: the definition, and the slow path."""
    return [word for word in _WORD.findall(text) if word]


def split(text: str) -> list[str]:
    """The words of ``text``."""
    if '"' in text or "|" in text:
        return split_by_grammar(text)
    if ";" in text:
        text = _COMMENT.sub(" ", text)
    return text.replace("(", " ( ").replace(")", " ) ").split()


class Words:
    """The words of one file, and the way back to their places.

    texts: the words, followed by a few ``END`` so that looking ahead needs no bounds check.
    """

    def __init__(self, text: str, path: str = "") -> None:
        self.path = path
        self._text = text
        self.texts = split(text)
        self._count = len(self.texts)
        self.texts.extend([END] * _LOOK_AHEAD)

    def place(self, word: int) -> tuple[int, int]:
        """Line and column, both from 1, of the word with that number; the end of the text behind the last."""
        matches = (match for match in _WORD.finditer(self._text) if match.group(1))
        found = next(itertools.islice(matches, word, None), None) if word < self._count else None
        offset = found.start() if found else len(self._text.rstrip())
        line, line_start = 1, 0
        for end in _LINE_END.finditer(self._text, 0, offset):
            line, line_start = line + 1, end.end()
        return line, offset - line_start + 1

    def error(self, message: str, word: int) -> SpecError:
        """A SpecError that points at the word with that number."""
        line, column = self.place(word)
        return SpecError(message, self.path or None, line, column)

    def expected(self, wanted: str, word: int) -> SpecError:
        """``wanted`` should have stood at ``word``: says what stands there."""
        text = self.texts[word]
        if text == END:
            return self.error(f"the file ends where {wanted} was expected; is a ')' missing?", word)
        if text in ('"', "|"):
            return self.error(f"a {text} is opened here and never closed", word)
        shown = text if len(text) <= 40 else text[:37] + "..."
        return self.error(f"expected {wanted}, found {shown!r}", word)

    def after(self, word: int) -> int:
        """The number of the word behind the expression that starts at ``word``."""
        return self._closing[word] + 1 if self.texts[word] == "(" else word + 1

    @cached_property
    def _closing(self) -> dict[int, int]:
        """Opening parenthesis to its closing one; to the end where it is missing.

        One pass for the whole file, made when first needed, so that looking past nested expressions stays
        linear however deep they are.
        """
        closing: dict[int, int] = {}
        opened: list[int] = []
        for i, text in enumerate(self.texts):
            if text == "(":
                opened.append(i)
            elif text == ")" and opened:
                closing[opened.pop()] = i
        for i in opened:
            closing[i] = self._count
        return closing

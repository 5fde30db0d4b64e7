"""The result files of the verification competition, and the counterexamples in them.

The first line is the verdict: sat, unsat, timeout, unknown or error.  Behind ``sat`` stands a counterexample:

    ((X_0 0.25)
     (X_1 1.0)
     (Y_0 -3.5))

all inputs in C order, then all outputs.  Numbers are the shortest decimals that read back as the same
float64, and so as the same float32 where they are float32 values.
"""

from __future__ import annotations

import numpy as np

from verifier.errors import SpecError
from verifier.vnnlib.expression import literal
from verifier.vnnlib.lexer import END, Words
from verifier.vnnlib.spec import Array

VERDICTS = ("sat", "unsat", "timeout", "unknown", "error")


def result_text(verdict: str, x: Array | None = None, y: Array | None = None) -> str:
    """The contents of a result file.

    x: any shape, written in C order; y: likewise.  Both are needed with ``sat`` and not allowed otherwise.
    Raises ValueError for anything else.
    """
    if str(verdict) not in VERDICTS:
        raise ValueError(f"{verdict!r} is no verdict; it is one of {', '.join(VERDICTS)}")
    if x is None or y is None:
        if verdict == "sat" or x is not y:
            raise ValueError("a counterexample has inputs and outputs, and sat needs one")
        return f"{verdict}\n"
    if verdict != "sat":
        raise ValueError(f"{verdict} comes without a counterexample")
    return f"{verdict}\n{counterexample_text(x, y)}"


def counterexample_text(x: Array, y: Array) -> str:
    """x: inputs, any shape, C order; y: outputs, likewise.  Raises ValueError unless all are finite."""
    lines = []
    for letter, values in (("X", np.asarray(x)), ("Y", np.asarray(y))):
        if not values.size or not np.isfinite(values).all():
            raise ValueError(f"the values of {letter} are not finite numbers, at least one")
        flat = values.astype(np.float64).ravel()
        lines += [f"({letter}_{i} {value!r})" for i, value in enumerate(flat.tolist())]
    return "(" + "\n ".join(lines) + ")\n"


def read_result(text: str, source: str = "") -> tuple[str, tuple[Array, Array] | None]:
    """The verdict of a result file, and its counterexample where it is ``sat`` and has one.

    source: what messages call the file.  Raises SpecError.
    """
    words = Words(text, source)
    verdict = words.texts[0]
    if verdict not in VERDICTS:
        raise words.expected(f"one of {', '.join(VERDICTS)} in the first line", 0)
    if verdict != "sat" and words.texts[1] != END:
        raise words.error(f"nothing may follow {verdict}", 1)
    if words.texts[1] == END:
        return verdict, None
    return verdict, _counterexample(words, 1)


def read_counterexample(text: str, source: str = "") -> tuple[Array, Array]:
    """x (n_inputs,) and y (n_outputs,) of a counterexample.

    source: what messages call the file.  Raises SpecError for syntax, gaps and repetitions.
    """
    return _counterexample(Words(text, source), 0)


def _counterexample(words: Words, start: int) -> tuple[Array, Array]:
    """The counterexample that starts at a word and is the last thing in the file."""
    texts = words.texts
    if texts[start] != "(":
        raise words.expected("a counterexample, ((X_0 <number>) ...)", start)
    values: dict[str, float] = {}
    i = start + 1
    while texts[i] == "(":
        name, value = texts[i + 1], literal(texts[i + 2])
        if name[:2] not in ("X_", "Y_"):
            raise words.expected("a variable X_<number> or Y_<number>", i + 1)
        if name in values:
            raise words.error(f"{name} is given twice", i + 1)
        if value is None:
            raise words.expected("a finite number", i + 2)
        if texts[i + 3] != ")":
            raise words.expected("')'", i + 3)
        values[name] = value
        i += 4
    if texts[i] != ")":
        raise words.expected("'(' or ')'", i)
    if texts[i + 1] != END:
        raise words.expected("nothing more behind the counterexample", i + 1)
    return _consecutive("X", values, words), _consecutive("Y", values, words)


def _consecutive(letter: str, values: dict[str, float], words: Words) -> Array:
    """The values of letter_0 to letter_n-1."""
    count = sum(name.startswith(letter) for name in values)
    for i in range(max(count, 1)):
        if f"{letter}_{i}" not in values:
            raise SpecError(f"the counterexample gives no value for {letter}_{i}", words.path or None)
    return np.array([values[f"{letter}_{i}"] for i in range(count)], np.float64)

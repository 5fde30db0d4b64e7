"""Every exception the toolkit raises on purpose, in one tree.

    VerifierError
    ├── InputError            the user can mend it: one sentence, exit code 2
    │   ├── ModelError        the ONNX file: unreadable, unsupported, not what onnxruntime computes
    │   ├── SpecError         the VNN-LIB file: syntax, undeclared variables, unbounded inputs
    │   ├── OptionError       an option with an impossible value, an unknown device
    │   ├── ProofError        a proof file: malformed, about something else, or it does not prove
    │   ├── OutputPathError   a file that was asked for and cannot be written
    │   └── BatchError        a list of instances, a suite or a journal that cannot be used
    ├── SolverError           an outside solver answered something that contradicts what is known
    └── SoundnessError        two of our own results contradict each other: a defect, never swallowed

The message of an ``InputError`` says what is wrong, where, and what to do.
"""

from __future__ import annotations

from pathlib import Path


class VerifierError(Exception):
    """Base of everything raised on purpose."""


class InputError(VerifierError):
    """The user can mend it; the message says how."""


class ModelError(InputError):
    """The model file cannot be used."""


class SpecError(InputError):
    """The property file cannot be used.

    ``path``, ``line`` and ``column`` (both from 1) locate the fault where it has a place.
    """

    def __init__(
        self,
        message: str,
        path: str | Path | None = None,
        line: int | None = None,
        column: int | None = None,
    ) -> None:
        self.path, self.line, self.column = path, line, column
        place = ":".join(str(part) for part in (path, line, column) if part is not None)
        super().__init__(f"{place}: {message}" if place else message)


class OptionError(InputError):
    """An option has an impossible value."""


class ProofError(InputError):
    """A proof file does not prove what it should."""


class OutputPathError(InputError):
    """A file that was asked for cannot be written."""


class BatchError(InputError):
    """A list of instances, a suite, a journal or a results file cannot be used."""


class SolverError(VerifierError):
    """An outside solver contradicts what is known, or failed in a way no status covers."""


class SoundnessError(VerifierError):
    """Two results of ours contradict each other."""

"""Formal verification of neural networks.

    import verifier
    result = verifier.verify("model.onnx", "property.vnnlib", timeout=90)
    result.verdict, result.witness, result.evidence

Everything exported here is public; torch and onnxruntime are imported when first needed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from verifier.errors import InputError, ModelError, OptionError, OutputPathError, SpecError, VerifierError
from verifier.verdict import DisjunctBounds, Evidence, EvidenceLevel, Result, Statistics, Verdict, Witness

if TYPE_CHECKING:
    from verifier.api import verify
    from verifier.model.read import load
    from verifier.options import Trust
    from verifier.pipeline import Options
    from verifier.vnnlib import Spec, read, robustness

__version__ = "0.1.0"

_LAZY = {
    "verify": "verifier.api",
    "load": "verifier.model.read",
    "Options": "verifier.pipeline",
    "Trust": "verifier.options",
    "Spec": "verifier.vnnlib",
    "read": "verifier.vnnlib",
    "robustness": "verifier.vnnlib",
}

__all__ = [
    "DisjunctBounds",
    "Evidence",
    "EvidenceLevel",
    "InputError",
    "ModelError",
    "OptionError",
    "Options",
    "OutputPathError",
    "Result",
    "Spec",
    "SpecError",
    "Statistics",
    "Trust",
    "Verdict",
    "VerifierError",
    "Witness",
    "load",
    "read",
    "robustness",
    "verify",
]


def __getattr__(name: str) -> object:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_LAZY[name]), name)

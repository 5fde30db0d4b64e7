"""Formal verification of neural networks.

    import verifier
    result = verifier.verify("model.onnx", "property.vnnlib", timeout=90)
    result.verdict, result.witness, result.evidence

    network = verifier.load("model.onnx")
    radius = verifier.certified_radius(network, image, norm="linf", timeout=60)
    radius.certified, radius.adversarial, radius.witness

Everything exported here is public; torch and onnxruntime are imported when first needed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from verifier.errors import InputError, ModelError, OptionError, OutputPathError, SpecError, VerifierError
from verifier.verdict import DisjunctBounds, Evidence, EvidenceLevel, Result, Statistics, Verdict, Witness

if TYPE_CHECKING:
    from verifier.api import check_evidence, load, verify
    from verifier.evidence.check import Replayed
    from verifier.options import Trust
    from verifier.pipeline import Options
    from verifier.radius.batch import certified_radii
    from verifier.radius.entry import certified_radius, maximise_loss, robust
    from verifier.radius.loss import Loss
    from verifier.radius.record import Moment, Radius
    from verifier.radius.table import RadiusTable
    from verifier.reachability import Range, output_range
    from verifier.vnnlib import Spec, read, robustness

__version__ = "0.1.0"

_LAZY = {
    "verify": "verifier.api",
    "load": "verifier.api",
    "check_evidence": "verifier.api",
    "Replayed": "verifier.evidence.check",
    "certified_radius": "verifier.radius.entry",
    "certified_radii": "verifier.radius.batch",
    "maximise_loss": "verifier.radius.entry",
    "robust": "verifier.radius.entry",
    "output_range": "verifier.reachability",
    "Loss": "verifier.radius.loss",
    "Moment": "verifier.radius.record",
    "Radius": "verifier.radius.record",
    "RadiusTable": "verifier.radius.table",
    "Range": "verifier.reachability",
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
    "Loss",
    "ModelError",
    "Moment",
    "OptionError",
    "Options",
    "OutputPathError",
    "Radius",
    "RadiusTable",
    "Range",
    "Replayed",
    "Result",
    "Spec",
    "SpecError",
    "Statistics",
    "Trust",
    "Verdict",
    "VerifierError",
    "Witness",
    "certified_radii",
    "certified_radius",
    "check_evidence",
    "load",
    "maximise_loss",
    "output_range",
    "read",
    "robust",
    "robustness",
    "verify",
]


def __getattr__(name: str) -> object:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_LAZY[name]), name)

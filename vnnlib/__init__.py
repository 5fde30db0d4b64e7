"""VNN-LIB 1.0: property files to the normal form and back, and the competition's result files.

    spec = read("property.vnnlib.gz")
    for disjunct in spec.disjuncts:
        disjunct.lower, disjunct.upper, disjunct.constraints

Everything raises ``verifier.errors.SpecError`` with file, line and column.
"""

from verifier.vnnlib.counterexample import counterexample_text, read_counterexample, read_result, result_text
from verifier.vnnlib.limits import ReadLimits
from verifier.vnnlib.read import read, read_text
from verifier.vnnlib.robustness import robustness
from verifier.vnnlib.spec import Disjunct, LinearConstraints, Spec
from verifier.vnnlib.write import to_text, write

__all__ = [
    "Disjunct",
    "LinearConstraints",
    "ReadLimits",
    "Spec",
    "counterexample_text",
    "read",
    "read_counterexample",
    "read_result",
    "read_text",
    "result_text",
    "robustness",
    "to_text",
    "write",
]

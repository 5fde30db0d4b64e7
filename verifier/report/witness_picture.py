"""The picture of a witness: what the box was drawn around, the counterexample, and the network's answers."""

from __future__ import annotations

from pathlib import Path

from verifier.query import Query
from verifier.report.original import recover_original
from verifier.report.pictures import save_triple, score_lines
from verifier.verdict import Witness


def save_picture(path: Path, query: Query, witness: Witness) -> None:
    """Write a PNG for a witness of the query.  Raises OutputPathError."""
    disjunct = query.disjuncts[witness.disjunct]
    shape = query.network.input_shape
    guess = recover_original(disjunct.lower, disjunct.upper, shape)
    original = query.replay.representable(guess, disjunct.lower, disjunct.upper)
    save_triple(
        path,
        original,
        witness.x,
        shape,
        title=(query.network.name,),
        original_lines=score_lines(query.replay.run(original)),
        counterexample_lines=score_lines(witness.y),
        lower=disjunct.lower,
        upper=disjunct.upper,
    )

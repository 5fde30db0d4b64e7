"""``verify MODEL SPEC`` for a binarised network."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from verifier.binarised import pipeline
from verifier.binarised.query import BinarisedModel, Query
from verifier.binarised.read import load_binarised
from verifier.deadline import Deadline
from verifier.errors import ModelError
from verifier.options import Trust
from verifier.progress import Progress
from verifier.report.outputs import check_writable, write_whole
from verifier.verdict import Result, Witness
from verifier.vnnlib.read import read
from verifier.vnnlib.spec import Spec


def check_binarised(
    model: BinarisedModel,
    spec: Path,
    deadline: Deadline,
    engine: str,
    threads: int,
    seed: int,
    trust: Trust,
    proof: Path | None,
    others: Sequence[Path],
    together: str,
    progress: Progress,
) -> tuple[Result, Callable[[Path, Witness], None]]:
    """The result, and how to draw its witness.  Raises InputError.

    proof: where to write that of an ``unsat``.  others: more networks, asked about together in the way ``together``.
    """
    if proof is not None:
        check_writable(proof)
    keep = None if proof is None else lambda found: write_whole(proof, found.text())
    options = pipeline.Options(engine=engine, threads=threads, seed=seed, trust=trust, keep_proof=keep)
    if not others:
        query = pipeline.prepare(model, read(spec))
        result = pipeline.solve(query, deadline, options, progress)
    else:
        queries: Iterable[Query] = _queries([model], others, read(spec), together)
        result, query = pipeline.solve_all(queries, deadline, options, progress)
    return result, lambda path, witness: draw(path, query, witness)


def _queries(models: list[BinarisedModel], others: Sequence[Path], spec: Spec, way: str) -> Iterator[Query]:
    from verifier.binarised.together import Ensemble

    for path in others:
        model, reason = load_binarised(path)
        if model is None:
            raise ModelError(f"{path} is no binarised network, and only these are taken together ({reason})")
        models.append(model)
    return Ensemble(models).queries(spec, way)


def draw(path: Path, query: Query, witness: Witness) -> None:
    """Write the witness's picture.  Raises OutputPathError."""
    import numpy as np

    from verifier.report.layout import image_layout
    from verifier.report.level_map import level_panel
    from verifier.report.original import recover_original
    from verifier.report.pictures import save_triple, score_lines

    model = query.model
    disjunct = query.spec.disjuncts[witness.disjunct]
    shape = model.network.input_shape
    guess = recover_original(disjunct.lower, disjunct.upper, shape)
    original = model.replay.representable(guess, disjunct.lower, disjunct.upper)
    layout = image_layout(shape)
    extras = []
    if layout is not None and model.network.quantiser is not None:
        moves = (model.network.quantiser(witness.x) - model.network.quantiser(original)).astype(np.int64)
        counts = next(box.levels.count for box in query.boxes if witness.disjunct in box.positions)
        extras = [level_panel(moves, counts, layout)]
    save_triple(
        path,
        original,
        witness.x,
        shape,
        title=(model.network.name,),
        original_lines=score_lines(model.replay.run(original)),
        counterexample_lines=score_lines(witness.y),
        lower=disjunct.lower,
        upper=disjunct.upper,
        extras=extras,
    )

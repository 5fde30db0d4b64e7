"""``verify MODEL SPEC`` for a binarised network."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from verifier.binarised import pipeline
from verifier.binarised.query import BinarisedModel, Query, Replaying
from verifier.binarised.read import load_binarised
from verifier.binarised.together import WAYS, Ensemble, StackedReplay
from verifier.deadline import Deadline
from verifier.errors import ModelError, OptionError
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
    if not others and together != WAYS[0]:
        raise OptionError(f"--together {together} is about several networks; name the others with --model")
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
    for path in others:
        model, reason = load_binarised(path)
        if model is None:
            raise ModelError(f"{path} is no binarised network, and only these are taken together ({reason})")
        models.append(model)
    return Ensemble(models).queries(spec, way)


def draw(path: Path, query: Query, witness: Witness) -> None:
    """Write the witness's picture.  Raises OutputPathError."""
    from verifier.report.layout import image_layout
    from verifier.report.level_map import level_panel
    from verifier.report.original import recover_original
    from verifier.report.pictures import save_triple

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
        original_lines=_lines(model.replay, original),
        counterexample_lines=_lines(model.replay, witness.x),
        lower=disjunct.lower,
        upper=disjunct.upper,
        extras=extras,
    )


def _lines(replay: Replaying, x: NDArray[np.float64]) -> tuple[str, ...]:
    """What the network says of an image; of several, the class that each sees."""
    from verifier.report.pictures import score_lines

    if not isinstance(replay, StackedReplay):
        return tuple(score_lines(replay.run(x)))
    classes = [str(int(np.argmax(outputs))) for outputs in replay.each(x)]
    return (f"classes {', '.join(classes)}", f"as {len(classes)} networks see it")

"""The main job as a function: files (or objects already loaded) in, a ``Result`` out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from verifier.binarised import pipeline as binarised_pipeline
from verifier.binarised.query import BinarisedModel
from verifier.binarised.read import load_binarised
from verifier.deadline import Deadline
from verifier.errors import ModelError, OptionError
from verifier.model.load_check import check
from verifier.model.read import Model
from verifier.model.read import load as load_file
from verifier.options import check_device, limit_threads, positive_seconds
from verifier.pipeline import Options, solve
from verifier.progress import Progress, silent
from verifier.query import Query
from verifier.report.outputs import check_writable
from verifier.verdict import Result
from verifier.vnnlib.read import read
from verifier.vnnlib.spec import Spec

if TYPE_CHECKING:
    from torch import nn

    from verifier.evidence.check import Replayed


def load(source: str | Path | nn.Module, example: Any = None) -> Model:
    """A network, loaded once and used for any number of questions.

    source: path of an ONNX file, plain or .gz, or a ``torch.nn.Module`` of ordinary layers; then ``example`` is an
    input with its batch axis, of which only the shape counts.  Both are compared with onnxruntime on random points.
    Raises ModelError, one sentence, for everything that can be wrong with either.
    """
    if isinstance(source, str | Path):
        return load_file(source)
    from verifier.model.torch_export import from_module

    if example is None:
        raise ModelError("a torch module needs an example input: load(module, torch.zeros(1, 1, 28, 28))")
    return from_module(source, example)


def verify(
    model: str | Path | Model | BinarisedModel,
    spec: str | Path | Spec,
    timeout: float = 90.0,
    options: Options | None = None,
    progress: Progress = silent,
) -> Result:
    """Is there an input in the region of ``spec`` for which the outputs of ``model`` satisfy it?

    model: path of an ONNX file, plain or .gz, or a ``Model`` from ``load``.  Binarised networks take their own way,
        with the options ``threads``, ``seed`` and ``trust``.
    spec: path of a VNN-LIB file, plain or .gz, or a ``Spec``.
    timeout: seconds for everything, reading the files included.
    Raises InputError (ModelError, SpecError, OptionError) when the question cannot be asked.
    """
    options = options or Options()
    deadline = Deadline.after(positive_seconds(timeout))
    check_device(options.device)
    limit_threads(options.threads)
    hint = ""
    if isinstance(model, str | Path):
        binarised, hint = load_binarised(model)
        model = model if binarised is None else binarised
    if isinstance(model, BinarisedModel):
        if options.evidence is not None:
            raise OptionError(
                f"evidence files are for other networks than binarised ones; {options.evidence} stays unwritten"
            )
        question = binarised_pipeline.prepare(model, spec if isinstance(spec, Spec) else read(spec))
        own = binarised_pipeline.Options(threads=options.threads, seed=options.seed, trust=options.trust)
        return binarised_pipeline.solve(question, deadline, own, progress)
    if options.evidence is not None:
        check_writable(options.evidence)
    query = prepare(model if isinstance(model, Model) else load_file(model, hint=hint), spec, options.seed)
    return solve(query, deadline, options, progress)


def check_evidence(
    model: str | Path | Model,
    spec: str | Path | Spec,
    evidence: str | Path,
    timeout: float = 3600.0,
    progress: Progress = silent,
) -> Replayed:
    """Replay the file that a run with ``Options(evidence=Path(...))`` or ``--evidence`` left, by bounds of its own.

    model, spec: as for ``verify``, the ones that the file was written for.
    Raises ProofError, one sentence, where the file does not prove what it says about them.
    """
    from verifier.evidence.check import check_evidence as replay

    deadline = Deadline.after(positive_seconds(timeout))
    return replay(
        prepare(model if isinstance(model, Model) else load_file(model), spec), Path(evidence), deadline, progress
    )


def prepare(model: Model, spec: str | Path | Spec, seed: int = 0) -> Query:
    """The query for a model and a property, after comparing the network with onnxruntime inside the region."""
    spec = spec if isinstance(spec, Spec) else read(spec)
    query = Query.of(model.network, spec, model.replay)
    if query.disjuncts:
        first = query.disjuncts[0]
        check(model.network, model.replay, first.lower, first.upper, seed, points=3)
    return query

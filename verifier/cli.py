"""The command line: ``verify MODEL SPEC`` and its subcommands.

The first line on stdout is the verdict; everything that is not an answer goes to stderr.  Exit code 0 for any
verdict, 2 for bad input (one sentence, no traceback), 1 for a defect of ours (a traceback), 130 after Ctrl-C.
"""

from __future__ import annotations

import contextlib
import os
import platform
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from verifier import __version__
from verifier.commands.bench import bench
from verifier.commands.check_evidence import check_evidence
from verifier.commands.check_proof import check_proof
from verifier.commands.compare import compare
from verifier.commands.merge import merge
from verifier.commands.radius import radius
from verifier.commands.report import report
from verifier.deadline import Deadline
from verifier.errors import InputError, OptionError
from verifier.report.outputs import check_writable, write_whole
from verifier.startup import collector_paused
from verifier.verdict import Result, Statistics, Verdict, Witness

if TYPE_CHECKING:
    from verifier.pipeline import Options
    from verifier.query import Query

DEFAULT_COMMAND = "check"
FIRST_WORD_OPTIONS = {"--help", "--version", "--install-completion", "--show-completion"}


class DefaultCommandGroup(TyperGroup):
    """``verify a.onnx b.vnnlib`` means ``verify check a.onnx b.vnnlib``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] not in FIRST_WORD_OPTIONS:
            args = [DEFAULT_COMMAND, *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=DefaultCommandGroup,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Formal verification of neural networks: verify MODEL SPEC.",
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"nn-verifier {__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Formal verification of neural networks.

    verify MODEL SPEC [OPTIONS] is short for verify check MODEL SPEC [OPTIONS].
    """


@dataclass(frozen=True)
class Outputs:
    """Files the user asked for, each None where not."""

    json: Path | None
    result: Path | None
    counterexample: Path | None
    image: Path | None
    evidence: Path | None

    def check(self) -> None:
        """Raises OutputPathError before any work is done."""
        for path in (self.json, self.result, self.counterexample, self.image, self.evidence):
            if path is not None:
                check_writable(path)


@app.command(DEFAULT_COMMAND)
def check(
    model: Annotated[Path, typer.Argument(help="ONNX file, plain or .gz.")],
    spec: Annotated[Path, typer.Argument(help="VNN-LIB file, plain or .gz.")],
    timeout: Annotated[float, typer.Option(help="Seconds for everything.")] = 90.0,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    threads: Annotated[int, typer.Option(help="CPU threads.")] = 1,
    seed: Annotated[int, typer.Option(help="Makes a run repeatable.")] = 0,
    memory: Annotated[
        str, typer.Option(help="Stay within: a share of the machine (60%) or a size (8G, 500M).")
    ] = "60%",
    trust: Annotated[str, typer.Option(help="Weakest evidence that counts as unsat: rigorous or solver.")] = "solver",
    json: Annotated[Path | None, typer.Option(help="Write everything known as JSON.")] = None,
    result_file: Annotated[Path | None, typer.Option(help="Write the VNN-COMP result file.")] = None,
    save_counterexample: Annotated[Path | None, typer.Option(help="Write the counterexample in VNN-LIB form.")] = None,
    image: Annotated[Path | None, typer.Option(help="Write a PNG: original, counterexample, difference.")] = None,
    engine: Annotated[
        str,
        typer.Option(
            help="Exact engine for binarised networks: auto, patterns, lazy, cp-sat, exact, highs, cadical, glucose."
        ),
    ] = "auto",
    also: Annotated[
        list[Path] | None,
        typer.Option("--model", help="Another binarised network that the same input shall fool; repeat for more."),
    ] = None,
    together: Annotated[
        str, typer.Option(help="How several are fooled: same (one disjunct for all), any (each by some), majority.")
    ] = "same",
    proof: Annotated[Path | None, typer.Option(help="Keep the checked proof of an unsat (binarised networks).")] = None,
    evidence: Annotated[
        Path | None, typer.Option(help="Write what verify check-evidence needs to replay the run (other networks).")
    ] = None,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Write a line per stage and second to stderr.")
    ] = False,
) -> None:
    """Is there an input in SPEC's region for which MODEL's outputs satisfy it?

    Prints sat, unsat, timeout or unknown on the first line.
    """
    outputs = Outputs(json, result_file, save_counterexample, image, evidence)
    try:
        outputs.check()
        code = _check(
            model,
            spec,
            timeout,
            device,
            threads,
            seed,
            memory,
            trust,
            outputs,
            engine,
            proof,
            also or [],
            together,
            verbose,
        )
    except InputError as error:
        _report_error(error, outputs)
        raise typer.Exit(2) from None
    raise typer.Exit(code)


def _check(
    model: Path,
    spec: Path,
    timeout: float,
    device: str,
    threads: int,
    seed: int,
    memory: str,
    trust: str,
    outputs: Outputs,
    engine: str,
    proof: Path | None,
    also: list[Path],
    together: str,
    verbose: bool,
) -> int:
    from verifier.memory import parse_memory
    from verifier.options import check_device, limit_threads, parse_trust, positive_seconds

    deadline = Deadline.after(positive_seconds(timeout))
    level = parse_trust(trust)
    most_bytes = parse_memory(memory)
    check_device(device)
    from verifier.report.live import LiveLine
    from verifier.watchdog import Watchdog

    context = {"model": str(model), "spec": str(spec), "options": {"timeout": timeout, "device": device}}

    def overrun() -> None:
        message = "one step took longer than foreseen; the run was cut off"
        result = Result(Verdict.TIMEOUT, statistics=Statistics(timeout), message=message)
        _publish(result, None, outputs, context)
        sys.stdout.flush()

    with Watchdog(deadline, overrun), LiveLine(deadline, verbose) as line:
        with collector_paused():
            from verifier.binarised.read import load_binarised

        binarised, reason = load_binarised(model)
        if binarised is not None:
            from verifier.commands.binarised import check_binarised

            if outputs.evidence is not None:
                raise OptionError(f"--evidence is for other networks; {model} is binarised, for which there is --proof")
            result, draw = check_binarised(
                binarised, spec, deadline, engine, threads, seed, level, proof, also, together, line
            )
            context |= {"model_sha256": binarised.sha256}
            _publish(result, draw, outputs, context)
            return 130 if result.message.startswith("interrupted") else 0
        for option, used in (("--engine", engine != "auto"), ("--proof", proof is not None), ("--model", bool(also))):
            if used:
                raise OptionError(f"{option} is for binarised networks; {model} is none" + (reason and f" ({reason})"))
        with collector_paused():
            from verifier.api import prepare
            from verifier.model.read import load
            from verifier.pipeline import Options, solve

        options = Options(
            device=device, threads=threads, seed=seed, trust=level, memory=most_bytes, evidence=outputs.evidence
        )
        limit_threads(threads)
        loaded = load(model, hint=reason)
        query = prepare(loaded, spec, seed)
        context |= {
            "model_sha256": loaded.sha256,
            "options": _options(options, timeout),
            "versions": _versions(),
        }
        result = solve(query, deadline, options, line)
    _publish(result, lambda path, witness: _draw(path, query, witness), outputs, context)
    return 130 if result.message.startswith("interrupted") else 0


app.command("check-proof")(check_proof)
app.command("check-evidence")(check_evidence)


@app.command()
def export(
    model: Annotated[Path, typer.Argument(help="ONNX file, plain or .gz.")],
    spec: Annotated[Path, typer.Argument(help="VNN-LIB file, plain or .gz.")],
    output: Annotated[Path, typer.Argument(help="Where to write: a name that ends in .lp or .mps.")],
    disjunct: Annotated[int, typer.Option(help="Which disjunct of the property, from 1.")] = 1,
) -> None:
    """Write the mixed-integer program of one disjunct, with readable names, for people and other solvers.

    Its optimum is the smallest margin over the box: the disjunct is impossible where that is positive.
    """
    try:
        _export(model, spec, output, disjunct)
    except InputError as error:
        typer.echo(f"error: {' '.join(str(error).split())}", err=True)
        raise typer.Exit(2) from None
    typer.echo(output)


app.command()(radius)


def _export(model: Path, spec: Path, output: Path, disjunct: int) -> None:
    if output.suffix not in (".lp", ".mps"):
        raise OptionError(f"{output} ends in neither .lp nor .mps; the ending chooses the format")
    check_writable(output)
    try:
        from verifier.encodings.milp import pulp_twin
    except ModuleNotFoundError:
        raise OptionError("writing programs needs PuLP; install it with: pip install 'nn-verifier[pulp]'") from None
    import torch

    from verifier.api import prepare
    from verifier.bounds.crown import intermediate_bounds
    from verifier.model.read import load

    query = prepare(load(model), spec)
    if not 1 <= disjunct <= len(query.disjuncts):
        raise OptionError(f"there is no disjunct {disjunct}; the property has {len(query.disjuncts)}")
    chosen = query.disjuncts[disjunct - 1]
    bounds = intermediate_bounds(
        query.network, torch.as_tensor(chosen.lower)[None], torch.as_tensor(chosen.upper)[None]
    )
    problem = pulp_twin.twin(query.network, chosen, bounds)
    (pulp_twin.write_lp if output.suffix == ".lp" else pulp_twin.write_mps)(problem, output)


for command in (bench, merge, report, compare):
    app.command()(command)


def _draw(path: Path, query: Query, witness: Witness) -> None:
    from verifier.report.witness_picture import save_picture

    save_picture(path, query, witness)


def _publish(
    result: Result, draw: Callable[[Path, Witness], None] | None, outputs: Outputs, context: dict[str, Any]
) -> None:
    """Print the answer and write every file that was asked for."""
    from verifier.report.text import as_json, summary
    from verifier.vnnlib.counterexample import counterexample_text, result_text

    typer.echo(summary(result))
    witness = result.witness
    if outputs.json is not None:
        write_whole(outputs.json, as_json(result, context))
    if outputs.result is not None:
        points = (None, None) if witness is None else (witness.x, witness.y)
        write_whole(outputs.result, result_text(str(result.verdict), *points))
    if witness is None or draw is None:
        return
    if outputs.counterexample is not None:
        write_whole(outputs.counterexample, counterexample_text(witness.x, witness.y))
        typer.echo(f"  counterexample: {outputs.counterexample}")
    if outputs.image is not None:
        draw(outputs.image, witness)
        typer.echo(f"  picture: {outputs.image}")


def _report_error(error: InputError, outputs: Outputs) -> None:
    """One sentence on stderr, and ``error`` in the files that a batch would look at."""
    message = " ".join(str(error).split())
    typer.echo(f"error: {message}", err=True)
    result = Result(Verdict.ERROR, message=message)
    from verifier.report.text import as_json

    for path, text in ((outputs.json, as_json(result, {})), (outputs.result, "error\n")):
        if path is None:
            continue
        try:
            check_writable(path)
            write_whole(path, text)
        except InputError:
            continue  # this very path may be what the sentence is about


def _options(options: Options, timeout: float) -> dict[str, Any]:
    return {
        "timeout": timeout,
        "device": options.device,
        "threads": options.threads,
        "seed": options.seed,
        "trust": str(options.trust),
        "memory": options.memory,
    }


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    names = ("torch", "onnxruntime", "highspy", "numpy")
    return {"verifier": __version__, "python": platform.python_version(), **{n: version(n) for n in names}}


def run() -> NoReturn:
    """The program ``verify``.  Ends without the interpreter's tear-down, in which torch spends half a second."""
    code: object = 0
    try:
        app()
    except SystemExit as end:
        code = end.code
    with contextlib.suppress(OSError):  # whoever read the output may have left
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code if isinstance(code, int) else 0 if code is None else 1)


if __name__ == "__main__":
    run()

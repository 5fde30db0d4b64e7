"""Distances of the nearest counterexamples of the Wong-Kolter network on MNIST, and the decision problem beside them.

    python -m verifier.benchmarks.radius_wk17a --index 0:100 --timeout 120 --journal radii.jsonl

Every image is also asked whether it is robust within ``epsilon``; the radius has to agree.  The journal gets one line
of JSON per image as it comes; images that are in it already are not run again, so slices add up to the whole.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from verifier.api import load
from verifier.datasets import read_data
from verifier.options import limit_threads
from verifier.radius.entry import certified_radius, robust
from verifier.radius.record import Radius
from verifier.verdict import Verdict

SHARED = Path(__file__).resolve().parents[2] / "shared"
QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9, 1.0)


def agreement(found: Radius, epsilon: float, verdict: Verdict) -> str:
    """What the radius says of the decision problem, against its verdict."""
    if found.certified >= epsilon:
        return "agrees" if verdict is Verdict.UNSAT else "DIFFERS"
    if found.adversarial <= epsilon:
        return "agrees" if verdict is Verdict.SAT else "DIFFERS"
    return "open"


def recorded(journal: Path | None, settings: dict[str, float]) -> dict[int, dict[str, Any]]:
    """The images in the journal that were run with these settings, by index."""
    if journal is None or not journal.exists():
        return {}
    records = [json.loads(line) for line in journal.read_text().splitlines()]
    return {record["image"]: record for record in records if settings.items() <= record.items()}


def summary(records: list[dict[str, Any]], tolerance: float, epsilon: float) -> str:
    """Shares closed and agreeing, and quantiles of the gaps."""
    gaps = np.array([record["adversarial"] - record["certified"] for record in records])
    closed = int((gaps <= tolerance).sum())
    counts = {word: sum(record["agreement"] == word for record in records) for word in ("agrees", "open", "DIFFERS")}
    quantiles = ", ".join(f"{q:.0%} {v:.4f}" for q, v in zip(QUANTILES, np.quantile(gaps, QUANTILES), strict=True))
    return (
        f"{closed} of {len(records)} closed to {tolerance:g}; gaps: {quantiles}\n"
        f"decision at {epsilon:g}: {counts['agrees']} agree, {counts['open']} open, {counts['DIFFERS']} differ"
    )


def main(
    index: Annotated[str, typer.Option(help="Which test images: 7, or a range such as 0:100.")] = "0:100",
    epsilon: Annotated[float, typer.Option(help="Of the decision problem.")] = 0.1,
    tolerance: Annotated[float, typer.Option(help="Of the radius.")] = 1e-3,
    timeout: Annotated[
        float, typer.Option(help="Seconds per image, for the radius and again for the decision.")
    ] = 120.0,
    threads: Annotated[int, typer.Option(help="CPU threads per image.")] = 1,
    shared: Annotated[Path, typer.Option(help="Where benchmarks/ and datasets/ lie.")] = SHARED,
    journal: Annotated[
        Path | None, typer.Option(help="One line of JSON per image; what is in it is not redone.")
    ] = None,
) -> None:
    """Run the benchmark and print the summary."""
    limit_threads(threads)
    model = load(shared / "benchmarks/mnist_wk17a/onnx/wk17a_linf0.1.onnx")
    data = read_data(shared / "datasets/mnist/t10k-images-idx3-ubyte.gz", model.network.input_shape, index)
    assert data.labels is not None
    settings = {"epsilon": epsilon, "tolerance": tolerance, "timeout": timeout, "threads": threads}
    known = recorded(journal, settings)
    records = []
    for image, x, label in zip(data.indices, data.inputs, data.labels.tolist(), strict=True):
        record = known.get(image)
        if record is None:
            found = certified_radius(model, x, label, tolerance=tolerance, timeout=timeout)
            decided = robust(model, x, label, epsilon=epsilon, timeout=timeout).verdict
            record = {
                "image": image,
                "label": label,
                "certified": found.certified,
                "adversarial": found.adversarial,
                "seconds": round(found.seconds, 2),
                "decision": str(decided),
                "agreement": agreement(found, epsilon, decided),
                **settings,
            }
            if journal is not None:
                with journal.open("a") as file:
                    file.write(json.dumps(record) + "\n")
        gap = record["adversarial"] - record["certified"]
        print(image, record["certified"], record["adversarial"], f"{gap:.4f}", record["seconds"], record["decision"],
              record["agreement"], flush=True)  # fmt: skip
        records.append(record)
    print(summary(records, tolerance, epsilon))


if __name__ == "__main__":
    typer.run(main)

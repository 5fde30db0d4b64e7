"""Certified and adversarial accuracy against the distance: two curves and the undecided band between them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from verifier.errors import OptionError, OutputPathError

Array = NDArray[np.float64]

NAMES = {"linf": "l-infinity", "l1": "l1", "l2": "l2", "l0": "l0 (inputs changed)"}


def save_accuracy_plot(
    path: Path, epsilons: Array, certified: Array, adversarial: Array, norm: str, count: int
) -> None:
    """epsilons, certified, adversarial: (points,), the two in [0, 1].  The ending of ``path`` chooses the format.

    Raises OptionError where matplotlib is not installed or does not know the ending, OutputPathError.
    """
    try:
        import matplotlib as mpl
    except ModuleNotFoundError:
        raise OptionError("plots need matplotlib; install it with: pip install 'nn-verifier[plot]'") from None
    mpl.use("Agg")
    from matplotlib.figure import Figure
    from matplotlib.ticker import PercentFormatter

    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    axes = figure.add_subplot()
    axes.fill_between(epsilons, certified, adversarial, step="post", color="0.85", label="undecided")
    axes.step(
        epsilons, adversarial, where="post", color="#c0392b", label="adversarial accuracy (no counterexample known)"
    )
    axes.step(epsilons, certified, where="post", color="#1f618d", label="certified accuracy (proved)")
    axes.set(xlabel=f"distance, {NAMES.get(norm, norm)}", ylabel="share of inputs", ylim=(0, 1.02))
    axes.set_xlim(0, max(float(epsilons[-1]), 1e-9))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.set_title(f"Robust accuracy, {count} input{'s' * (count != 1)}", loc="left")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, fontsize="small")
    try:
        figure.savefig(path, dpi=150)
    except ValueError as error:
        raise OptionError(f"{path}: {str(error).splitlines()[0]}; end the name in .png, .pdf or .svg") from None
    except OSError as error:
        raise OutputPathError(f"{path} cannot be written: {error.strerror or error}; choose another place") from None

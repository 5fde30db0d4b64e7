"""The radii of many inputs: rows of numbers, for pandas and CSV, and curves of accuracy."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from verifier.errors import OptionError
from verifier.radius.record import Radius
from verifier.radius.rows import COLUMNS, csv_text, read_rows, row_of
from verifier.report.outputs import check_writable, write_whole

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, eq=False)
class RadiusTable:
    """One entry per input, in their order.

    indices: what the inputs are called.  predicted: the model's answer at the input itself.  questions: digests of all
    that was asked, model and tolerance included.  defects: tracebacks of inputs whose run failed.
    Iterating gives the ``Radius`` objects; ``records`` plain dictionaries, for pandas and CSV.
    """

    indices: tuple[int, ...]
    predicted: tuple[int, ...]
    radii: tuple[Radius, ...]
    questions: tuple[str, ...]
    defects: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.radii)

    def __iter__(self) -> Iterator[Radius]:
        return iter(self.radii)

    def __getitem__(self, place: int) -> Radius:
        return self.radii[place]

    @property
    def records(self) -> list[dict[str, Any]]:
        """One dictionary per input, keys ``COLUMNS``: ``pandas.DataFrame(table.records)``."""
        return [row_of(*parts) for parts in zip(self.indices, self.predicted, self.radii, self.questions, strict=True)]

    def frame(self) -> pd.DataFrame:
        """A pandas table.  Raises OptionError where pandas is not installed."""
        try:
            import pandas as pd
        except ModuleNotFoundError:
            raise OptionError("tables need pandas; install it with: pip install 'nn-verifier[table]'") from None
        return pd.DataFrame(self.records, columns=list(COLUMNS)).set_index("index")

    def to_csv(self, path: str | Path) -> None:
        """Write all columns.  Raises OutputPathError."""
        check_writable(Path(path))
        write_whole(Path(path), csv_text(self.records))

    @classmethod
    def read_csv(cls, path: str | Path) -> RadiusTable:
        """The finished rows of a file that ``to_csv`` or a run has written, whole or cut off; without witnesses and
        histories.  Raises InputError.
        """
        rows = read_rows(path)
        predicted, radii, questions = zip(*rows.values(), strict=True) if rows else ((), (), ())
        return cls(tuple(rows), predicted, radii, questions)

    def accuracy(self, epsilons: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
        """Certified and adversarial accuracy at each distance: shares in [0, 1], of the shape of ``epsilons``.

        Certified: no counterexample within the distance (misclassified inputs have one at 0).  Adversarial: none is
        known there, an upper bound on the robust accuracy.  What lies between the two is undecided.
        """
        steps = np.array([r.step for r in self.radii])
        distances = np.asarray(epsilons, np.float64)[..., None]
        # Where distances are whole numbers, there is nothing between them.
        distances = np.where(steps > 0, np.floor(distances), distances)
        right = np.array([p == r.label and r.adversarial > 0 for p, r in zip(self.predicted, self.radii, strict=True)])
        certified = np.array([r.certified for r in self.radii])
        adversarial = np.array([r.adversarial for r in self.radii])
        # At distance 0 nothing but the input itself counts.
        safe = right & ((certified >= distances) | (distances == 0))
        return safe.mean(-1), (right & (adversarial > distances)).mean(-1)

"""A short run of the fuzzer with fixed seeds over all engines; ``make fuzz`` runs longer, with new ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from fuzz.engines import ENGINES
from fuzz.fuzzer import fuzz
from fuzz.larger import mixed_case
from verifier.deadline import Deadline

CASES = 60
FEWEST = 4
"""The time may run out first, since engines search to their limits at a tie; fewer cases than these test nothing."""


@pytest.mark.slow
def test_no_engine_is_wrong(tmp_path: Path) -> None:
    tally = fuzz(ENGINES, range(CASES), Deadline.after(20), tmp_path, case_of=mixed_case)
    print("\n".join(tally.lines()))
    found = [f"{f.engine}: {f.complaint.kind}: {f.complaint.text} ({f.file})" for f in tally.failures]
    assert not found, "\n".join(found)
    assert tally.cases >= FEWEST

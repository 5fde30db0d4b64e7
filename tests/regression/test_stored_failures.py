"""Every case the fuzzer stored: no engine may answer one of them wrongly again."""

from __future__ import annotations

from pathlib import Path

import pytest

from fuzz.engines import ENGINES
from fuzz.fuzzer import examine
from fuzz.stored import load, store

FOLDER = Path(__file__).parent
STORED = sorted(FOLDER.glob("*.json"))


@pytest.mark.parametrize("file", STORED, ids=lambda file: file.stem)
def test_stored_case(file: Path) -> None:
    stored = load(file)
    found = [f"{engine}: {c.kind}: {c.text}" for engine, c in examine(stored.case, ENGINES)]
    assert not found, "\n".join([f"stored for {stored.complaint!r}", *found])


@pytest.mark.parametrize("file", STORED, ids=lambda file: file.stem)
def test_stored_case_reads_back_as_written(file: Path, tmp_path: Path) -> None:
    again = store(load(file), tmp_path)
    assert again.name == file.name, "the file was changed by hand: name it as `store` does"
    assert again.read_text(encoding="utf-8") == file.read_text(encoding="utf-8")

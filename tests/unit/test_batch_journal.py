"""The journal: whole lines whatever happens, one writer, and what merging keeps."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from verifier.benchmarks import journal as journal_module
from verifier.benchmarks.journal import Journal, merge, read_journal
from verifier.benchmarks.record import Record, Status, read_line
from verifier.errors import BatchError, OutputPathError


def record(name: str = "p", status: Status = Status.UNSAT, finished: str = "2026-01-01", **more: object) -> Record:
    return Record("c", "m.onnx", f"{name}.vnnlib", 60.0, status, 1.5, finished=finished, **more)


def test_a_record_survives_its_line() -> None:
    full = record(
        message="a\nb",
        asked={"sentences": ["é"], "label": 3},
        bounds=({"lower": None, "upper": 1.0, "closed_by": None, "level": None},),
        witness={"x": [0.1], "y": [-0.0]},
        options={"seed": 0},
        output="no",
    )
    assert read_line(full.line(), "here") == full
    assert full.line().count("\n") == 1
    assert read_line(replace(full, seconds=0.0).line(), "here").seconds == 0.0


def test_a_newer_record_may_have_more_fields() -> None:
    values = json.loads(record().line())
    assert read_line(json.dumps(values | {"colour": "red"}), "here") == record()


@pytest.mark.parametrize("line", ["", "{}", "[1]", '{"format":1}', '{"format":9,"status":"sat"}', "sat,1,2"])
def test_other_lines_are_refused_with_their_place(line: str) -> None:
    with pytest.raises(BatchError, match=r"^x\.jsonl:3: "):
        read_line(line, "x.jsonl:3")


def test_what_is_appended_is_read(tmp_path: Path) -> None:
    path = tmp_path / "new" / "j.jsonl"
    with Journal(path) as journal:
        assert journal.records == {}
        journal.append(record("a"))
        journal.append(record("b", Status.TIMEOUT))
    with Journal(path) as journal:
        assert list(journal.records.values()) == [record("a"), record("b", Status.TIMEOUT)]
        journal.append(record("b", Status.SAT))
    assert [r.status for r in read_journal(path).values()] == [Status.UNSAT, Status.SAT]
    assert len(path.read_text().splitlines()) == 3


@pytest.mark.parametrize("cut", range(1, len(record("b").line()), 40))
def test_a_torn_last_line_is_cut_off(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "j.jsonl"
    path.write_text(record("a").line() + record("b").line()[:cut])
    assert list(read_journal(path)) == [record("a").key]
    with Journal(path) as journal:
        assert list(journal.records) == [record("a").key]
        journal.append(record("c"))
    assert path.read_text() == record("a").line() + record("c").line()


def test_a_journal_torn_in_its_first_line_is_begun_anew(tmp_path: Path) -> None:
    path = tmp_path / "j.jsonl"
    path.write_text(record("a").line()[:30])
    with Journal(path) as journal:
        journal.append(record("b"))
    assert path.read_text() == record("b").line()


def test_a_last_line_that_lacks_its_newline_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "j.jsonl"
    path.write_text(record("a").line() + record("b").line().rstrip("\n"))
    with Journal(path) as journal:
        journal.append(record("c"))
    assert path.read_text() == "".join(record(name).line() for name in "abc")


@pytest.mark.parametrize("text", ["onnx,vnnlib\n", "hello", "{}\n", record().line() + "\n" + record().line()])
def test_a_file_that_is_no_journal_is_refused_and_left_alone(tmp_path: Path, text: str) -> None:
    path = tmp_path / "j.jsonl"
    path.write_text(text)
    with pytest.raises(BatchError, match=r"j\.jsonl"):
        Journal(path)
    assert path.read_text() == text


def test_a_second_run_on_the_same_journal_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "j.jsonl"
    with Journal(path), pytest.raises(BatchError, match="another run writes"):
        Journal(path)
    with Journal(path):
        pass


def test_unwritable_places(tmp_path: Path) -> None:
    with pytest.raises(OutputPathError, match="cannot be written"):
        Journal(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(OutputPathError, match="cannot be written"):
        Journal(tmp_path / "file" / "j.jsonl")


def test_a_full_disk_is_said_and_leaves_whole_lines_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "j.jsonl"
    real = os.write
    with Journal(path) as journal:
        journal.append(record("a"))
        monkeypatch.setattr(journal_module.os, "write", lambda file, data: real(file, data[:20]))
        with pytest.raises(OutputPathError, match="disk is full"):
            journal.append(record("b"))
    monkeypatch.undo()
    with Journal(path) as journal:
        assert list(journal.records) == [record("a").key]


def write(path: Path, *records: Record) -> Path:
    path.write_text("".join(r.line() for r in records))
    return path


def test_merge_takes_the_better_result(tmp_path: Path) -> None:
    one = write(
        tmp_path / "1",
        record("a"),
        record("b", Status.TIMEOUT, "2026-01-02"),
        record("c", Status.CRASHED, "2026-01-03"),
        record("d", finished="2026-01-01"),
    )
    two = write(
        tmp_path / "2",
        record("e"),
        record("b", Status.SAT, "2026-01-01"),
        record("c", Status.TIMEOUT, "2026-01-01"),
        record("d", finished="2026-01-05"),
    )
    for order in ([one, two], [two, one]):
        merged = {r.vnnlib[0]: (str(r.status), r.finished) for r in merge(order)}
        assert merged == {
            "a": ("unsat", "2026-01-01"),
            "b": ("sat", "2026-01-01"),
            "c": ("timeout", "2026-01-01"),
            "d": ("unsat", "2026-01-05"),
            "e": ("unsat", "2026-01-01"),
        }


def test_merge_refuses_a_contradiction(tmp_path: Path) -> None:
    one, two = write(tmp_path / "1", record("a")), write(tmp_path / "2", record("a", Status.SAT))
    with pytest.raises(BatchError, match=r"a\.vnnlib is unsat in .*1 and sat in .*2"):
        merge([one, two])

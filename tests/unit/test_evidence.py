"""Evidence files: what is in them comes back out, and the checker refuses everything that does not prove its point."""

from __future__ import annotations

import json
import zipfile
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support import networks
from support.evidence import forged, impossible, members, recorded, recorded_boxes, without_leaf, write
from verifier.deadline import Deadline
from verifier.errors import OutputPathError, ProofError
from verifier.evidence.boxes import Tree
from verifier.evidence.check import check_evidence
from verifier.evidence.cover import gaps
from verifier.evidence.file import Reader, Writer
from verifier.verdict import Verdict

ENGINES = ("plain", "optimised", "refining", "boxes")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Per engine the query and the content of a file that takes several leaves."""
    folder = tmp_path_factory.mktemp("evidence")
    rng = np.random.default_rng([0, 5])
    query = impossible(rng, networks.dense(rng, (3, 8, 7, 2)), 2, 0.15)
    found = {}
    for engine in ENGINES:
        path = folder / f"{engine}.npz"
        result = recorded_boxes(query, path) if engine == "boxes" else recorded(query, engine, path)
        assert result.verdict is Verdict.UNSAT
        assert result.recorded is not None
        assert sum(result.recorded.leaves.values()) >= 6
        found[engine] = members(path)
    return query, found


def refused(query, content, path):
    """The sentence with which the checker refuses some content."""
    write(path, content)
    with pytest.raises(ProofError) as caught:
        check_evidence(query, path, Deadline.after(60))
    return str(caught.value)


def table_of(content, name):
    return next(key for key in content if f"/{name}/" in key).rpartition("/")[0]


def changed(content, table, column, change):
    """A copy with one column changed in place by a function."""
    array = np.array(content[f"{table}/{column}"])
    result = change(array)
    return {**content, f"{table}/{column}": array if result is None else result}


@pytest.mark.parametrize("engine", ENGINES)
def test_content_comes_back_and_is_accepted(files, engine, tmp_path):
    query, content = files[0], files[1][engine]
    write(tmp_path / "copy.npz", content)
    found = check_evidence(query, tmp_path / "copy.npz", Deadline.after(60))
    assert found.verdict == "unsat"
    assert sum(found.closed.values()) == len(query.disjuncts)
    assert not found.open
    assert not found.unexplained


@pytest.mark.parametrize("engine", ["plain", "optimised", "refining"])
def test_every_leaf_is_needed(files, engine, tmp_path):
    query, content = files[0], files[1][engine]
    table = table_of(content, "leaves")
    for leaf in range(0, len(content[f"{table}/owner"]), 9):
        assert "no leaf closes the region" in refused(query, without_leaf(content, table, leaf), tmp_path / "f.npz")


@pytest.mark.parametrize("engine", ["plain", "optimised", "refining"])
def test_other_slopes_do_not_give_the_same_bounds(files, engine, tmp_path):
    query, content = files[0], files[1][engine]
    table = table_of(content, "leaves")
    bad = changed(content, table, "slopes", lambda slopes: 1 - slopes)
    assert "bounded by" in refused(query, bad, tmp_path / "f.npz")
    beyond = changed(content, table, "slopes", lambda slopes: slopes + 1.5)
    assert "slopes outside [0, 1]" in refused(query, beyond, tmp_path / "f.npz")


@pytest.mark.parametrize("engine", ["plain", "optimised", "refining"])
def test_signs_and_multipliers_matter(files, engine, tmp_path):
    query, content = files[0], files[1][engine]
    table = table_of(content, "leaves")
    for place in range(0, len(content[f"{table}/splits"]), 37):

        def flip(splits, place=place):
            splits[place] *= -1

        refused(query, changed(content, table, "splits", flip), tmp_path / "f.npz")
    assert "out of order" in refused(
        query, changed(content, table, "splits", lambda s: np.sign(s) * np.abs(s)[0]), tmp_path / "f.npz"
    )
    assert "negative multiplier" in refused(
        query, changed(content, table, "multipliers", lambda m: -1 - m), tmp_path / "f.npz"
    )
    if np.any(content[f"{table}/multipliers"] > 1e-3):
        refused(query, changed(content, table, "multipliers", lambda m: 50 * m), tmp_path / "f.npz")


@pytest.mark.parametrize("engine", ["plain", "refining"])
def test_a_claim_that_is_too_high_is_refused(files, engine, tmp_path):
    query, content = files[0], files[1][engine]
    bad = changed(content, table_of(content, "leaves"), "claim", lambda claim: claim + 1e-3)
    assert "less than it claims" in refused(query, bad, tmp_path / "f.npz")


def test_rows_of_optimised_bounds_are_checked(files, tmp_path):
    query, content = files[0], files[1]["refining"]
    table = table_of(content, "rows")
    path = tmp_path / "f.npz"
    assert "slopes outside" in refused(query, changed(content, table, "slopes", lambda s: s - 2), path)
    assert "does not fit the network" in refused(query, changed(content, table, "place", lambda p: p + 1000), path)
    refused(query, changed(content, table, "slopes", lambda s: 1 - s), path)


def test_regions_are_checked(files, tmp_path):
    query, content = files[0], files[1]["refining"]
    regions, leaves = table_of(content, "regions"), table_of(content, "leaves")
    path = tmp_path / "f.npz"

    def claim_all_empty(empty):
        empty[:] = True

    def no_parent(last):
        last[-1] = 10**6

    assert "do not cross" in refused(query, changed(content, regions, "empty", claim_all_empty), path)
    assert "no parent" in refused(query, changed(content, regions, "last", no_parent), path)
    assert "other splits" in refused(query, changed(content, leaves, "region", lambda r: r[::-1].copy()), path)
    if np.any(content[f"{regions}/cut_value"]):
        assert "negative weight" in refused(query, changed(content, regions, "cut_value", lambda v: -v), path)


def test_the_tree_of_boxes_is_checked(files, tmp_path):
    query, content = files[0], files[1]["boxes"]
    table = table_of(content, "nodes")
    path = tmp_path / "f.npz"
    width = query.network.n_inputs
    assert "inputs or cuts" in refused(query, changed(content, table, "code", lambda c: c + 2 * width), path)
    assert "inputs or cuts" in refused(query, changed(content, table, "code", lambda c: np.where(c < 0, -3, c)), path)
    assert "inputs or cuts" in refused(query, changed(content, table, "position", lambda p: p * np.nan), path)
    assert "no leaf closes" in refused(query, changed(content, table, "code", lambda c: c[:-1]), path)
    assert "belong to no box" in refused(query, changed(content, table, "code", lambda c: np.append(c, [-1, -1])), path)
    # Cuts at the ends leave the boxes as large as they were.
    assert "no leaf closes" in refused(query, changed(content, table, "position", lambda p: p * 0 - 1e9), path)


def test_another_model_or_property_is_refused(files, tmp_path):
    query, content = files[0], files[1]["plain"]
    path = tmp_path / "f.npz"
    other = networks.dense(np.random.default_rng(99), (3, 8, 7, 2))
    assert "another network" in refused(replace(query, network=other), content, path)
    assert "another property" in refused(query.restricted([0]), content, path)
    swapped = query.restricted([1, 0])
    assert "another property" in refused(swapped, content, path)
    refused(swapped, forged(content, swapped), path)
    refused(replace(query, network=other), forged(content, replace(query, network=other)), path)


def test_headers_that_say_more_than_the_file_holds_are_refused(files, tmp_path):
    query, content = files[0], files[1]["plain"]
    path = tmp_path / "f.npz"

    def with_header(**changes):
        header = json.loads(json.dumps(content["header"]))
        for fact in header["disjuncts"]:
            fact.update(changes)
        return {**content, "header": header}

    assert "nothing in it closes" in refused(query, with_header(closed_by=None), path)
    assert "missing" in refused(query, with_header(section=-1), path)
    assert "damaged" in refused(query, with_header(section=7), path)
    header = {**content["header"], "sections": [{**content["header"]["sections"][0], "kind": "magic"}]}
    assert "unknown kind" in refused(query, {**content, "header": header}, path)
    crown = {**content["header"], "sections": [{**content["header"]["sections"][0], "kind": "crown"}]}
    assert "does not close it" in refused(query, {**content, "header": crown}, path)
    assert "version" in refused(query, {**content, "header": {**content["header"], "version": 2}}, path)
    sat = {**content["header"], "verdict": "sat", "witness": {"x": [0.0] * 3, "disjunct": 0}}
    refused(query, {**content, "header": sat}, path)


def test_what_is_no_evidence_file_is_refused_in_one_sentence(files, tmp_path):
    query = files[0]
    path = tmp_path / "f.npz"
    with pytest.raises(ProofError, match="is no evidence file"):
        check_evidence(query, path, Deadline.after(60))
    path.write_text("sat\n")
    with pytest.raises(ProofError, match="is no evidence file"):
        check_evidence(query, path, Deadline.after(60))
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("header.json", "[]")
    with pytest.raises(ProofError, match="version"):
        check_evidence(query, path, Deadline.after(60))


def test_part_of_a_tree_closes_some_disjuncts_and_leaves_others_open(tmp_path):
    """A section of both kinds of disjuncts: the closed ones are accepted, the open ones counted."""
    rng = np.random.default_rng([0, 5])
    query = impossible(rng, networks.dense(rng, (3, 8, 7, 2)), 2, 0.15)
    easy = query.disjuncts[0].constraints
    first = replace(query.disjuncts[0], constraints=replace(easy, bounds=easy.bounds - 0.3))
    query = replace(query, spec=replace(query.spec, disjuncts=(first, query.disjuncts[1])))
    assert recorded_boxes(query, tmp_path / "whole.npz").verdict is Verdict.UNSAT
    content = members(tmp_path / "whole.npz")
    header = json.loads(json.dumps(content["header"]))
    header["verdict"] = "timeout"
    header["disjuncts"][1] |= {"closed_by": None, "section": None}
    write(tmp_path / "open.npz", {**content, "header": header})
    found = check_evidence(query, tmp_path / "open.npz", Deadline.after(60))
    assert found.closed == {"input splitting": 1}
    assert found.open == {1: 0}


def test_damage_in_the_arrays_is_refused(files, tmp_path):
    query, content = files[0], files[1]["plain"]
    write(tmp_path / "f.npz", content)
    data = bytearray((tmp_path / "f.npz").read_bytes())
    with zipfile.ZipFile(tmp_path / "f.npz") as archive:
        where = next(info for info in archive.infolist() if info.filename.endswith("slopes.npy.gz"))
    at = where.header_offset + 30 + len(where.filename) + where.compress_size // 2
    data[at] ^= 0xFF
    (tmp_path / "f.npz").write_bytes(data)
    with pytest.raises(ProofError, match="damaged"):
        check_evidence(query, tmp_path / "f.npz", Deadline.after(60))


def test_time_over_is_no_proof(files, tmp_path):
    query, content = files[0], files[1]["plain"]
    write(tmp_path / "f.npz", content)
    with pytest.raises(ProofError, match="time is over"):
        check_evidence(query, tmp_path / "f.npz", Deadline.after(0))


@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
def test_nothing_proves_what_is_false(files, tmp_path_factory, seed):
    """Files whose arrays are changed at random never convince the checker that a property with a solution has none."""
    rng = np.random.default_rng(seed)
    query, engine = files[0], ENGINES[seed % len(ENGINES)]
    easier = []
    for disjunct in query.disjuncts:
        rows = disjunct.constraints
        easier.append(replace(disjunct, constraints=replace(rows, bounds=rows.bounds + 0.15 + 1e-6)))
    possible = replace(query, spec=replace(query.spec, disjuncts=tuple(easier)))
    content = forged(dict(files[1][engine]), possible)
    for name in [name for name in content if name != "header"]:
        array = np.array(content[name])
        if array.size and rng.random() < 0.2 and not name.endswith("/neurons/0/node"):
            at = rng.integers(array.size)
            kind = array.dtype.kind
            if name.endswith("claim"):
                array[:] = 1e-9
            elif kind == "f":
                array.flat[at] = rng.choice([0.0, 1.0, 1e-3, 5.0, 1e9, np.nan, np.inf])
            elif kind == "b":
                array.flat[at] = True
            else:
                array.flat[at] = rng.integers(-8, 9)
        content[name] = array
    refused(possible, content, tmp_path_factory.mktemp("forged") / "f.npz")


def test_tables_are_written_in_chunks_and_read_as_one(tmp_path):
    writer = Writer()
    parts = [np.arange(300_000) + 300_000 * i for i in range(5)]
    for part in parts:
        writer.add("0/leaves", {"a": part, "b": part.astype(np.float32)})
    writer.add("1/leaves", {"a": np.zeros(3)})
    size = writer.save(tmp_path / "f.npz", {"sections": []}, lambda table: table.startswith("0/"))
    assert size == (tmp_path / "f.npz").stat().st_size
    with Reader(tmp_path / "f.npz") as reader:
        assert len(list(reader.chunks("0/leaves"))) > 1
        table = reader.table("0/leaves")
        assert np.array_equal(table["a"], np.concatenate(parts))
        assert table["b"].dtype == np.float32
        assert reader.table("1/leaves") == {}
    assert list(tmp_path.iterdir()) == [tmp_path / "f.npz"]


@pytest.mark.parametrize("engine", ENGINES)
def test_a_search_without_any_time_leaves_everything_open(files, engine, tmp_path):
    query, path = files[0], tmp_path / "f.npz"
    result = recorded_boxes(query, path, 0.0) if engine == "boxes" else recorded(query, engine, path, 0.0)
    assert result.verdict is Verdict.TIMEOUT
    found = check_evidence(query, path, Deadline.after(60))
    assert set(found.open) == {i for i, bound in enumerate(result.bounds) if bound.level is None}
    assert all(left for left in found.open.values())


def test_no_room_is_one_sentence(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    writer = Writer()
    writer.add("0/leaves", {"a": np.zeros(3)})
    writer.save(tmp_path / "f.npz", {}, lambda _: True)
    monkeypatch.setattr(zipfile.ZipFile, "writestr", full)
    with pytest.raises(OutputPathError, match="no room"):
        writer.add("0/leaves", {"a": np.zeros(10**6)})
    with pytest.raises(OutputPathError, match="cannot be written"):
        writer.save(tmp_path / "g.npz", {}, lambda _: True)
    assert list(tmp_path.iterdir()) == [tmp_path / "f.npz"]


def random_leaves(rng, neurons, depth):
    """The leaves of a random tree of splits."""
    leaves = [[]]
    for _ in range(depth):
        at = rng.integers(len(leaves))
        leaf = leaves.pop(at)
        free = sorted(set(range(1, neurons + 1)) - {abs(code) for code in leaf})
        if free:
            neuron = int(rng.choice(free))
            leaves += [[*leaf, neuron], [*leaf, -neuron]]
        else:
            leaves.append(leaf)
    return leaves


def packed(leaves):
    counts = np.array([len(leaf) for leaf in leaves], np.int32)
    return counts, np.array([code for leaf in leaves for code in sorted(leaf, key=abs)], np.int32)


@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=100, deadline=None)
def test_leaves_of_a_tree_cover_and_fewer_do_not(seed):
    rng = np.random.default_rng(seed)
    leaves = random_leaves(rng, 6, int(rng.integers(0, 15)))
    rng.shuffle(leaves)
    assert list(gaps(*packed(leaves))) == []
    missing = leaves.pop(int(rng.integers(len(leaves))))
    left = list(gaps(*packed(leaves)))
    assert left
    # The first gap found lies in the leaf that was taken away, and no other leaf meets it.
    for gap in left:
        assert all(-code not in gap for code in missing)
        for leaf in leaves:
            assert any(-code in gap for code in leaf)


def test_trees_of_boxes_have_two_children_per_split():
    tree = Tree.read(np.array([0, -1, 3, -1, -1], np.int16), np.array([0.5, 0.25]), 2)
    assert tree.other.tolist() == [2, -1, 4, -1, -1]
    cut = Tree.read(np.array([0, -1, 3], np.int16), np.array([0.5, 0.25]), 2)
    assert cut.other.tolist() == [2, -1, -1]
    with pytest.raises(ProofError, match="belong to no box"):
        Tree.read(np.array([-1, -1], np.int16), np.zeros(0), 2)

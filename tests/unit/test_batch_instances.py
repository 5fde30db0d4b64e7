"""Lists of instances, shards, filters, and suites by name."""

from __future__ import annotations

import gzip
import os
import subprocess
from pathlib import Path

import pytest

from verifier.benchmarks.instances import file_digest, matching, read_instances, shard, short_name
from verifier.benchmarks.suites import cache_folder, read_suite, suite_instances, suite_names
from verifier.errors import BatchError, OptionError


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_rows(tmp_path: Path) -> None:
    path = write(tmp_path / "acas" / "instances.csv", "\ufefforig.onnx , p.vnnlib, 60\n\n./b.onnx,q.vnnlib,0.5,more\n")
    (tmp_path / "acas" / "orig.onnx").touch()
    (tmp_path / "acas" / "p.vnnlib.gz").write_bytes(gzip.compress(b""))
    first, second = read_instances(path)
    assert first.key == ("acas", "orig.onnx", "p.vnnlib")
    assert (first.timeout, second.timeout) == (60.0, 0.5)
    assert first.onnx_path == tmp_path / "acas" / "orig.onnx"
    assert first.vnnlib_path == tmp_path / "acas" / "p.vnnlib.gz"
    assert second.vnnlib_path == tmp_path / "acas" / "q.vnnlib", "named as in the list where nothing is there"
    assert str(second) == "b q"


def test_header_duplicates_category_and_timeout(tmp_path: Path) -> None:
    path = write(tmp_path / "instances.csv", "onnx,vnnlib,timeout\na,p,1\na,p,2\na,q\n")
    found = read_instances(path, "mine", timeout=7)
    assert [(i.key, i.timeout) for i in found] == [(("mine", "a", "p"), 7), (("mine", "a", "q"), 7)]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "lists no instance"),
        ("a,p,1\na\n", ":2: a row needs"),
        ("a,p,soon\n", ":1: the third column"),
        ("a,p\n", "give --timeout"),
        ("a,p,-1\n", "the third column"),
        ("a,p,nan\n", "the third column"),
    ],
)
def test_bad_lists(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(BatchError, match=r"instances\.csv.*" + words):
        read_instances(write(tmp_path / "instances.csv", text))


def test_unreadable_lists(tmp_path: Path) -> None:
    for path in (tmp_path / "none.csv", tmp_path):
        with pytest.raises(BatchError, match="cannot be read"):
            read_instances(path)
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BatchError, match="no CSV file"):
        read_instances(tmp_path / "binary.csv")


def test_names() -> None:
    names = ("./onnx/a.onnx.gz", "a.onnx", "x\\a", "b/a.vnnlib", "a.gz")
    assert {short_name(name) for name in names} == {"a"}
    assert short_name("p_0.03.vnnlib.gz") == "p_0.03"


def many(tmp_path: Path, count: int) -> list:
    return read_instances(write(tmp_path / "c" / "instances.csv", "".join(f"n{i}.onnx,p,1\n" for i in range(count))))


@pytest.mark.parametrize("parts", [1, 3, 7, 40])
def test_shards_are_a_partition(tmp_path: Path, parts: int) -> None:
    instances = many(tmp_path, 23)
    shards = [shard(instances, f"{i}/{parts}") for i in range(1, parts + 1)]
    assert sorted((i for part in shards for i in part), key=instances.index) == instances
    assert max(map(len, shards)) - min(map(len, shards)) <= 1


@pytest.mark.parametrize("text", ["0/3", "4/3", "1", "a/b", "1/0", "-1/3"])
def test_bad_shards(tmp_path: Path, text: str) -> None:
    with pytest.raises(OptionError, match="i/n"):
        shard(many(tmp_path, 3), text)


def test_filter(tmp_path: Path) -> None:
    instances = many(tmp_path, 12)
    assert [i.onnx for i in matching(instances, r"^c n1[01]\.")] == ["n10.onnx", "n11.onnx"]
    with pytest.raises(OptionError, match="no regular expression"):
        matching(instances, "(")


def test_digest(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"abc")
    assert file_digest(tmp_path / "f").startswith("ba7816bf8f01cfea")


# --- suites ------------------------------------------------------------------------------------------------------


def test_every_suite_can_be_read() -> None:
    assert {"digits", "vnncomp2021", "vnncomp2025"} <= set(suite_names())
    for name in suite_names():
        suite = read_suite(name)
        assert suite.description
        assert suite.repository or suite.categories


def test_the_suite_that_ships_is_complete() -> None:
    instances = suite_instances("digits")
    assert len(instances) == 42
    assert all(i.onnx_path.is_file() and i.vnnlib_path.is_file() and i.category == "digits" for i in instances)
    assert suite_instances("digits/digits", timeout=3)[0].timeout == 3


def test_names_that_no_suite_has() -> None:
    with pytest.raises(BatchError, match=r"neither a list of instances nor a suite.*digits, vnncomp2021"):
        suite_instances("nosuch")
    with pytest.raises(BatchError, match="has no category nosuch; it has acasxu"):
        suite_instances("vnncomp2021/nosuch")


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A suite named s in tmp_path/suites whose repository lies on this disk, and an empty cache."""
    work = tmp_path / "work"
    for category in ("one", "two"):
        write(work / "benchmarks" / category / "instances.csv", f"{category}.onnx,p.vnnlib,5\n")
        write(work / "benchmarks" / category / f"{category}.onnx", "")
    identity = {f"GIT_{who}_{what}": "a@b" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    for arguments in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "x"]):
        subprocess.run(["git", "-C", work, *arguments], env=os.environ | identity, check=True)
    text = f'description = "d"\nrepository = "file://{work}"\nfolder = "benchmarks"\n[categories.two]\ntimeout = 9\n'
    write(tmp_path / "suites" / "s.toml", text + "[categories.one]\n[categories.gone]\n")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "suites"


def test_a_suite_is_fetched_once_and_only_what_is_wanted(repository: Path) -> None:
    told: list[str] = []
    (instance,) = suite_instances("s/one", say=told.append, folder=repository)
    assert instance.key == ("one", "one.onnx", "p.vnnlib")
    assert instance.onnx_path.is_file()
    assert len(told) == 1
    assert not (cache_folder("s") / "benchmarks" / "two").exists()
    both = suite_instances("s", say=told.append, folder=repository)
    assert [(i.category, i.timeout) for i in both] == [("two", 9.0), ("one", 5.0)]
    (repository.parent / "work").rename(repository.parent / "moved")
    assert suite_instances("s", say=told.append, folder=repository) == both, "no need for the repository any more"
    assert len(told) == 1


def test_offline_it_says_how_to_name_a_copy(repository: Path) -> None:
    (repository.parent / "work").rename(repository.parent / "moved")
    with pytest.raises(BatchError, match=r"cannot be fetched .*--data FOLDER, or copy them to .*/cache/nn-verifier"):
        suite_instances("s", say=lambda text: None, folder=repository)


@pytest.mark.parametrize("inside", ["moved", "moved/benchmarks"])
def test_a_copy_of_the_users(repository: Path, inside: str) -> None:
    (repository.parent / "work").rename(repository.parent / "moved")
    found = suite_instances("s/two", repository.parent / inside, folder=repository)
    assert [i.key for i in found] == [("two", "two.onnx", "p.vnnlib")]
    for wrong in (repository, repository / "nosuch"):
        with pytest.raises(BatchError, match="--data"):
            suite_instances("s/two", wrong, folder=repository)

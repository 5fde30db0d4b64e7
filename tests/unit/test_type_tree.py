"""The tree that mypy checks: packages as they are imported, and real file names in what is printed."""

from __future__ import annotations

from pathlib import Path

import pytest

from package_map import modules, package_folders
from type_tree import build_tree, with_real_names

PROJECT = """
[tool.setuptools]
packages = ["verifier", "verifier.model", "verifier.bounds", "verifier.bounds.inner", "verifier.encodings.milp"]
[tool.setuptools.package-dir]
"verifier.bounds" = "bounds"
"verifier.encodings.milp" = "encodings/milp"
"""
FILES = ("verifier", "verifier/model", "bounds", "bounds/inner", "encodings/milp")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "pyproject.toml").write_text(PROJECT)
    for folder in FILES:
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        (tmp_path / folder / "__init__.py").write_text(f"# {folder}\n")
    (tmp_path / "verifier" / "py.typed").touch()
    (tmp_path / "bounds" / "notes.txt").touch()
    return tmp_path


def test_longest_mapped_prefix_decides(project: Path) -> None:
    assert [folder.as_posix() for folder in package_folders(project).values()] == list(FILES)
    assert modules(project)["verifier.bounds.inner"] == Path("bounds/inner/__init__.py")


def test_tree_holds_links_to_the_sources(project: Path) -> None:
    tree = project / "build" / "tree"
    stale = tree / "verifier" / "gone.py"
    stale.parent.mkdir(parents=True)
    stale.touch()
    real = build_tree(project, tree)
    assert not stale.exists()
    assert (tree / "verifier/bounds/inner/__init__.py").read_text() == "# bounds/inner\n"
    assert (tree / "verifier/py.typed").is_symlink()
    assert not (tree / "verifier/bounds/notes.txt").exists()
    assert real["build/tree/verifier/encodings/milp/__init__.py"] == "encodings/milp/__init__.py"


def test_output_names_the_real_files() -> None:
    real = {"build/tree/verifier/bounds/crown.py": "bounds/crown.py"}
    line = "build/tree/verifier/bounds/crown.py:12: error: no: not so"
    assert with_real_names(line, real) == "bounds/crown.py:12: error: no: not so"
    assert with_real_names("Found 1 error in 1 file", real) == "Found 1 error in 1 file"
    assert with_real_names("", real) == ""

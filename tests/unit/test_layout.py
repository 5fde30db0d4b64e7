"""The layout rules of the project: which part may import which, and what lies where.

The rules are checked on the syntax trees of all files, so an import inside a function or under
``TYPE_CHECKING`` counts like any other.
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from package_map import ROOT, modules, package_folders

TIERS: tuple[tuple[str, ...], ...] = (
    (
        "verifier.conclusion",
        "verifier.deadline",
        "verifier.memory",
        "verifier.side_by_side",
        "verifier.errors",
        "verifier.options",
        "verifier.progress",
        "verifier.startup",
        "verifier.verdict",
        "verifier.watchdog",
    ),
    ("verifier.vnnlib", "verifier.model"),
    ("verifier.query",),
    ("verifier.bounds",),
    ("verifier.falsify", "verifier.encodings"),
    ("verifier.solve", "verifier.proofs", "verifier.evidence"),
    ("verifier.search",),
    ("verifier.pipeline", "verifier.binarised", "verifier.report", "verifier.datasets"),
    ("verifier.api", "verifier.radius", "verifier.reachability"),
    ("verifier.benchmarks",),
    ("verifier.commands",),
    ("verifier.cli",),
    ("verifier",),
)
"""From the bottom up.  A part imports itself and lower tiers: never its neighbours, never upwards.

The bottom tier is the exception: its modules may use each other.  A name covers everything below it;
``verifier`` is the public API alone, whatever is not named above it.
"""

FORBIDDEN = (
    ("verifier.solve", "verifier.model"),
    ("verifier.solve", "verifier.bounds"),
    ("verifier.evidence", "verifier.bounds"),
    ("verifier.evidence", "verifier.falsify"),
    ("verifier.evidence", "verifier.encodings"),
)
"""The checker of evidence shares no bound with the searches it checks.
Solver drivers take arrays and clauses; they never see a layer, although they stand above it."""

FREE = frozenset({"verifier.__version__"})
"""Names that anyone may import."""

CODE_FOLDERS = ("verifier", "vnnlib", "bounds", "encodings", "benchmarks", "tests", "tools")
MAX_LINES = 450


def python_files() -> list[Path]:
    """Every Python file of the project, relative to its root."""
    return sorted(file.relative_to(ROOT) for folder in CODE_FOLDERS for file in (ROOT / folder).rglob("*.py"))


def part_of(module: str) -> tuple[int, str]:
    """The tier of a module and the name in ``TIERS`` that covers it, the longest one."""
    covering = [
        (len(name), tier, name)
        for tier, names in enumerate(TIERS)
        for name in names
        if module == name or module.startswith(name + ".")
    ]
    _, tier, name = max(covering)
    return tier, name


def imported(tree: ast.AST, module: str, is_package: bool) -> Iterator[tuple[int, str]]:
    """Line and absolute dotted name of everything a module imports, ``import_module("name")`` included.

    ``from a import b`` gives ``a.b``: whether ``b`` is a module is for the caller to find out.
    """
    package = module.split(".") if is_package else module.split(".")[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            prefix = [*base, *([node.module] if node.module else [])]
            yield from ((node.lineno, ".".join([*prefix, alias.name])) for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
            for argument in node.args[:1]:
                if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
                    yield node.lineno, argument.value


def violations(source: str, module: str, is_package: bool, known: frozenset[str]) -> Iterator[str]:
    """What breaks the import rule in one module, a sentence each."""
    tier, part = part_of(module)
    for line, name in imported(ast.parse(source), module, is_package):
        target = name if name in known else name.rpartition(".")[0]
        if name in FREE or not (target == "verifier" or target.startswith("verifier.")):
            continue
        their_tier, their_part = part_of(target)
        if (part, their_part) in FORBIDDEN:
            yield f"{module}:{line} imports {target}: {part} must not know {their_part}"
        elif part != their_part and (their_tier > tier or their_tier == tier > 0):
            yield f"{module}:{line} imports {target}: {their_part} does not stand below {part}"


def test_imports_point_one_way() -> None:
    known = frozenset(modules())
    found = [
        violation
        for module, file in modules().items()
        for violation in violations(
            (ROOT / file).read_text(encoding="utf-8"), module, file.name == "__init__.py", known
        )
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("source", "module"),
    [
        ("import verifier.cli", "verifier.bounds.crown"),
        ("from verifier.bounds import crown", "verifier.model.network"),
        ("from verifier import search", "verifier.falsify.attack"),
        ("def f():\n    from verifier.pipeline import solve", "verifier.search.split"),
        ("from ..search import split", "verifier.bounds.crown"),
        ("from . import cli", "verifier.query"),
        ("from importlib import import_module\nimport_module('verifier.cli')", "verifier.model.network"),
        ("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import verifier.cli", "verifier.verdict"),
        ("from verifier.model.network import Network", "verifier.solve.highs"),
        ("from verifier.falsify.attack import attack", "verifier.encodings.milp.rows"),
        ("import verifier", "verifier.model.network"),
    ],
)
def test_import_rule_catches(source: str, module: str) -> None:
    known = frozenset({module, "verifier", "verifier.cli", "verifier.search", "verifier.bounds"})
    assert list(violations(source, module, is_package=False, known=known))


@pytest.mark.parametrize(
    ("source", "module"),
    [
        ("from verifier.model.network import Network", "verifier.bounds.crown"),
        ("from .relaxation import relax", "verifier.bounds.crown"),
        ("from verifier.verdict import Verdict", "verifier.progress"),
        ("import numpy", "verifier.model.network"),
        ("from verifier.pipeline import solve", "verifier"),
    ],
)
def test_import_rule_allows(source: str, module: str) -> None:
    assert not list(violations(source, module, module == "verifier", frozenset({module})))


def test_packages_are_the_folders_on_disk() -> None:
    """A folder missing from pyproject.toml works when installed editable and is absent from the wheel."""
    inits = [f.parent for f in python_files() if f.name == "__init__.py" and f.parts[0] != "tests"]
    declared = package_folders()
    assert sorted(declared.values()) == sorted(inits)
    assert len(set(declared.values())) == len(declared)
    for package, folder in declared.items():
        assert package.split(".")[-1] == folder.name, f"{package} lies in {folder}"
    in_packages = {file for file in python_files() if file.parent in set(declared.values())}
    loose = {f for f in python_files() if f.parts[0] not in ("tests", "tools", "benchmarks")} - in_packages
    assert not loose, f"code outside every package: {sorted(map(str, loose))}"


def test_encodings_stays_no_package() -> None:
    """A top-level package ``encodings`` would hide the standard library's and stop every interpreter."""
    assert not (ROOT / "encodings" / "__init__.py").exists()


def test_root_on_the_path_does_no_harm() -> None:
    environment = {**os.environ, "PYTHONPATH": "."}
    code = "import verifier, verifier.bounds, codecs; print(verifier.bounds.__file__)"
    command = [sys.executable, "-c", code]
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert Path(run.stdout.strip()) == ROOT / "bounds" / "__init__.py"


def test_no_utils() -> None:
    vague = ("utils", "util", "helpers", "misc", "common")
    bad = [file for file in python_files() if file.stem.strip("_") in vague]
    assert not bad, "name the file after what it does"


@pytest.mark.parametrize("file", python_files(), ids=str)
def test_file_has_a_head_and_a_length(file: Path) -> None:
    source = (ROOT / file).read_text(encoding="utf-8")
    if source.strip():
        assert ast.get_docstring(ast.parse(source)), f"{file}: say at its head what the file is"
    lines = len(source.splitlines())
    # Tables of cases may be long.
    assert lines <= MAX_LINES or file.parts[0] == "tests", f"{file} has {lines} lines: is it one technique?"


def test_no_second_copies() -> None:
    """``import bounds`` from the root would load a second copy of ``verifier.bounds``."""
    mapped = {folder.parts[0] for folder in package_folders().values()} - {"verifier"} | {"encodings"}
    found = [
        f"{file}:{line} imports {name}"
        for file in python_files()
        for line, name in imported(ast.parse((ROOT / file).read_text(encoding="utf-8")), "x.y", False)
        if name.split(".")[0] in mapped
    ]
    assert not found, "\n".join(found)

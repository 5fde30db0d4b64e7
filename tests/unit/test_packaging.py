"""The wheel, as a user gets it: it holds every module, and the demo runs from it in a clean environment.

The editable install finds modules in the source folders, so a package that pyproject.toml forgets works there
and is absent from the wheel.  The clean environment borrows the libraries of this one (torch is large), but
not the editable install: a ``.pth`` file puts the outer site-packages on the path without running the
``.pth`` files in it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

from package_map import ROOT, modules, package_folders

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("packaging")]

DEMO = ROOT / "benchmarks" / "digits"
NOT_SOURCE = shutil.ignore_patterns(".*", "build", "dist", "out", "*.egg-info", "__pycache__", "tests")


def run(*command: str | Path, cwd: Path) -> str:
    """What a command prints; its error output is shown when it fails."""
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(
        list(map(str, command)), cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command[0]} failed:\n{done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy of the sources, so that nothing left in ``build/`` gets into it."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    shutil.copytree(ROOT, source, ignore=NOT_SOURCE)
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, cwd=source)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def clean(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of programs of a new environment with the wheel installed."""
    environment = tmp_path_factory.mktemp("clean") / "environment"
    venv.create(environment, symlinks=True)
    programs = environment / "bin"
    run(sys.executable, "-m", "pip", "--python", programs / "python", "install", "--quiet", "--no-index",
        "--no-deps", wheel, cwd=environment)  # fmt: skip
    (packages,) = environment.glob("lib/python*/site-packages")
    outer = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (packages / "libraries.pth").write_text("".join(f"{path}\n" for path in sorted(outer)))
    return programs


def test_wheel_holds_every_module_and_nothing_else(wheel: Path) -> None:
    wanted = {"verifier/py.typed"}
    for package, folder in package_folders().items():
        wanted |= {f"{package.replace('.', '/')}/{file.name}" for file in (ROOT / folder).glob("*.py")}
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert {name for name in held if name.endswith((".py", ".typed"))} == wanted
    assert all(name.startswith("verifier/") for name in held)


def test_wheel_holds_the_data_of_packages(wheel: Path) -> None:
    """Suites, the suite that ships, and what the report is made of."""
    folder = ROOT / "benchmarks"
    data = [*folder.glob("suites/*.toml"), *folder.glob("report/*.html"), *folder.glob("report/*.css")]
    data += [*folder.glob("report/*.js"), *(file for file in (folder / "digits").rglob("*.*nn*") if file.is_file())]
    data.append(folder / "digits" / "instances.csv")
    wanted = {f"verifier/benchmarks/{file.relative_to(folder).as_posix()}" for file in data}
    assert len(wanted) > 30
    with zipfile.ZipFile(wheel) as archive:
        assert wanted <= set(archive.namelist())


def test_a_suite_runs_and_is_reported_from_the_wheel(clean: Path, tmp_path: Path) -> None:
    run(clean / "verify", "bench", "digits", "--filter", "demo", "--jobs", "1", cwd=tmp_path)
    run(clean / "verify", "report", "digits.jsonl", cwd=tmp_path)
    rows = [line.split(",") for line in (tmp_path / "digits.csv").read_text().splitlines()]
    assert [(row[2], row[4]) for row in rows] == [("demo_unsat.vnnlib", "unsat"), ("demo_sat.vnnlib", "sat")]
    assert "demo_sat" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_every_module_imports_from_the_wheel(clean: Path, tmp_path: Path) -> None:
    names = [name for name in sorted(modules()) if not name.endswith("__main__")]
    code = "import importlib, sys\nfor name in sys.argv[1:]: print(importlib.import_module(name).__file__)"
    files = run(clean / "python", "-c", code, *names, cwd=tmp_path).split()
    assert len(files) == len(names)
    assert all(Path(file).is_relative_to(clean.parent) for file in files), files


@pytest.mark.parametrize(("spec", "verdict"), [("demo_unsat.vnnlib", "unsat"), ("demo_sat.vnnlib", "sat")])
def test_demo_runs_from_the_wheel(clean: Path, tmp_path: Path, spec: str, verdict: str) -> None:
    printed = run(clean / "verify", DEMO / "onnx/mlp.onnx", DEMO / spec, "--timeout", "60", cwd=tmp_path).splitlines()
    assert printed[0] == verdict

"""Type-check the package: ``python tools/type_tree.py`` (or ``make types``).

Folder ``X/`` is imported as ``verifier.X``, a mapping that pyproject.toml declares and no type checker
follows.  This script lays the packages out as they are imported, a tree of links under ``build/tree``, runs
mypy on it and names the real files in what mypy prints.

Invariant: the tree holds exactly the modules that the wheel holds, for both come from pyproject.toml.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from package_map import ROOT, package_folders

TREE = Path("build", "tree")
SUFFIXES = (".py", ".pyi", ".typed")


def build_tree(root: Path, tree: Path) -> dict[str, str]:
    """Link every module into ``tree``; maps each link, relative to ``root``, to the real file."""
    shutil.rmtree(tree, ignore_errors=True)
    real = {}
    for package, folder in package_folders(root).items():
        target = tree.joinpath(*package.split("."))
        target.mkdir(parents=True, exist_ok=True)
        for file in sorted((root / folder).iterdir()):
            if file.suffix in SUFFIXES:
                link = target / file.name
                link.symlink_to(os.path.relpath(file, target))
                real[link.relative_to(root).as_posix()] = file.relative_to(root).as_posix()
    return real


def with_real_names(line: str, real: dict[str, str]) -> str:
    """A line of mypy's output with the link at its head replaced by the file it points to."""
    head = re.match(r"[^:]+", line)
    return real.get(head[0], head[0]) + line[head.end() :] if head else line


def main() -> int:
    """Build the tree and run mypy on it; its exit code."""
    real = build_tree(ROOT, ROOT / TREE)
    command = [sys.executable, "-m", "mypy", *sys.argv[1:], (TREE / "verifier").as_posix()]
    run = subprocess.run(command, cwd=ROOT, text=True, stdout=subprocess.PIPE, check=False)
    for line in run.stdout.splitlines():
        print(with_real_names(line, real))
    return run.returncode


if __name__ == "__main__":
    sys.exit(main())

"""Where each package of pyproject.toml has its files: folder ``X/`` is imported as ``verifier.X``."""

from __future__ import annotations

import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def package_folders(root: Path = ROOT) -> dict[str, Path]:
    """Each package named in pyproject.toml and its folder relative to ``root``.

    The longest mapped prefix decides, as in setuptools: a package below a mapped one lies in its folder.
    """
    settings = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    mapping: dict[str, str] = settings["package-dir"]
    folders = {}
    for package in settings["packages"]:
        parts = package.split(".")
        for length in range(len(parts), -1, -1):
            prefix = ".".join(parts[:length])
            if prefix in mapping or not prefix:
                folders[package] = Path(mapping.get(prefix, ""), *parts[length:])
                break
    return folders


def modules(root: Path = ROOT) -> dict[str, Path]:
    """Every module of every package and its file relative to ``root``."""
    found = {}
    for package, folder in package_folders(root).items():
        for file in sorted((root / folder).glob("*.py")):
            name = package if file.stem == "__init__" else f"{package}.{file.stem}"
            found[name] = folder / file.name
    return found

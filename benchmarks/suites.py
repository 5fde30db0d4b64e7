"""Suites by name: where their files lie, which categories they have, and their time-outs.

A suite is a file ``suites/NAME.toml``:

    description = "one line"
    repository = "address"      of a git repository, for suites that are fetched
    folder = "benchmarks"       of the categories: inside the repository, or relative to the file
    [categories.NAME]           left out: every folder that holds a list is a category
    instances = "list.csv"      left out: instances.csv or NAME_instances.csv
    timeout = 60                left out: the third column of the list

A suite's files are looked for in the folder the user names, in the folder above (suites that ship with the project),
and in the cache, where ``fetch`` puts them.  ``SUITE/CATEGORY`` means one category.
"""

from __future__ import annotations

import os
import re
import subprocess
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from verifier.benchmarks.instances import Instance, read_instances
from verifier.errors import BatchError

FOLDER = Path(__file__).with_name("suites")


@dataclass(frozen=True)
class Category:
    """instances: the list's name, "" for the usual ones.  timeout: seconds, None for the list's own."""

    instances: str = ""
    timeout: float | None = None


@dataclass(frozen=True)
class Suite:
    """What a suite's file says."""

    name: str
    description: str
    folder: str
    repository: str = ""
    categories: Mapping[str, Category] = field(default_factory=dict)


def suite_names(folder: Path = FOLDER) -> list[str]:
    return sorted(path.stem for path in folder.glob("*.toml"))


def read_suite(name: str, folder: Path = FOLDER) -> Suite:
    """Raises BatchError for a name that no suite has."""
    path = folder / f"{name}.toml"
    if name not in suite_names(folder):
        raise BatchError(
            f"{name} is neither a list of instances nor a suite; give the path of a list with rows "
            f"onnx,vnnlib,seconds, or one of the suites {', '.join(suite_names(folder))}"
        )
    values = tomllib.loads(path.read_text(encoding="utf-8"))
    categories = {key: Category(**entry) for key, entry in values.pop("categories", {}).items()}
    return Suite(name, categories=categories, **values)


def cache_folder(name: str) -> Path:
    """Where a fetched suite lies."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "nn-verifier" / "suites" / name


def suite_instances(
    name: str,
    data: Path | None = None,
    timeout: float | None = None,
    say: Callable[[str], None] = print,
    folder: Path = FOLDER,
) -> list[Instance]:
    """The instances of ``SUITE`` or ``SUITE/CATEGORY``.

    data: the user's copy of the files; by default those that ship with the project, or the cache, filled by git.
    timeout: seconds for every instance in place of the suite's.  say: is told what is fetched.
    Raises BatchError where the files cannot be had.
    """
    suite_name, _, category = name.partition("/")
    suite = read_suite(suite_name, folder)
    if suite.categories and category and category not in suite.categories:
        raise BatchError(f"the suite {suite.name} has no category {category}; it has {', '.join(suite.categories)}")
    lists = _lists(suite, category, _located(suite, category, data, say, folder))
    instances = []
    for found, path in lists.items():
        entry = suite.categories.get(found, Category())
        limit = timeout if timeout is not None else entry.timeout
        instances += read_instances(path, found, limit)
    return instances


def _located(suite: Suite, category: str, data: Path | None, say: Callable[[str], None], folder: Path) -> Path:
    """The folder that holds the categories."""
    if data is not None:
        if not data.is_dir():
            raise BatchError(f"--data {data} is no folder; name the folder that holds the categories of {suite.name}")
        inside = data / suite.folder
        return inside if suite.repository and inside.is_dir() else data
    if not suite.repository:
        return (folder / suite.folder).resolve()
    return fetch(suite, category, cache_folder(suite.name), say) / suite.folder


def _lists(suite: Suite, category: str, folder: Path) -> dict[str, Path]:
    """The list of every category that is there; the wanted one must be."""
    names = [category] if category else list(suite.categories) or sorted(p.name for p in folder.iterdir() if p.is_dir())
    found = {}
    for name in names:
        candidates = [entry.instances for entry in [suite.categories.get(name, Category())] if entry.instances]
        candidates += ["instances.csv", f"{name}_instances.csv"]
        # A suite of one category may lie right in its folder.
        places = [folder / name, folder] if len(suite.categories) == 1 else [folder / name]
        paths = [place / candidate for place in places for candidate in candidates]
        path = next((path for path in paths if path.is_file()), None)
        if path is not None:
            found[name] = path
        elif category:
            raise BatchError(
                f"{folder} has no list {name}/{candidates[0]}; name the folder that holds the categories of "
                f"{suite.name} with --data"
            )
    if not found:
        raise BatchError(f"{folder} holds no category of {suite.name}; name the folder that does with --data")
    return found


def fetch(suite: Suite, category: str, target: Path, say: Callable[[str], None]) -> Path:
    """A clone of the suite's repository in ``target``, with the wanted category's files ("" for all) in it.

    Suites are large, so only the files of the wanted categories are downloaded.  Raises BatchError offline.
    """
    wanted = f"{suite.folder}/{category}" if category else suite.folder
    have = target / ".fetched"  # what is there completely; a fetch that was cut short is not entered
    fetched = have.read_text(encoding="utf-8").splitlines() if have.exists() else []
    copied = not (target / ".git").is_dir() and (target / wanted).is_dir()
    if copied or wanted in fetched or suite.folder in fetched:
        return target
    if not (target / ".git").is_dir():
        say(f"fetching {suite.name} from {suite.repository} into {target}")
        target.parent.mkdir(parents=True, exist_ok=True)
        clone = ["clone", "--quiet", "--depth", "1", "--filter=blob:none", "--sparse", suite.repository, str(target)]
        _git(suite, target, *clone)
    _git(suite, target, "-C", str(target), "sparse-checkout", "add", wanted)
    have.write_text("\n".join([*fetched, wanted]) + "\n", encoding="utf-8")
    return target


def _git(suite: Suite, target: Path, *arguments: str) -> None:
    environment = {**os.environ, "GIT_TERMINAL_PROMPT": "0", "GIT_LFS_SKIP_SMUDGE": "0"}
    try:
        subprocess.run(["git", *arguments], env=environment, check=True, capture_output=True, text=True)
        return
    except FileNotFoundError:
        reason = "git is not installed"
    except subprocess.CalledProcessError as error:
        last = error.stderr.strip().splitlines()
        reason = re.sub(r"^fatal: ", "", last[-1]) if last else f"git ended with {error.returncode}"
    raise BatchError(
        f"the suite {suite.name} cannot be fetched from {suite.repository} ({reason}); where you have its files, name "
        f"their folder: --data FOLDER, or copy them to {target}"
    )

"""``make fuzz SECONDS=60 [SEED=1]``: fuzz all engines; exit code 1 when one is wrong."""

from __future__ import annotations

import argparse
import itertools
import secrets
import sys
from pathlib import Path

from fuzz.engines import ENGINES
from fuzz.fuzzer import fuzz
from fuzz.larger import mixed_case
from verifier.deadline import Deadline

STORED = Path(__file__).resolve().parent.parent / "regression"


def main() -> int:
    parser = argparse.ArgumentParser(prog="fuzz", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=None, help="of the first case; each later one adds 1")
    parser.add_argument("--cases", type=int, default=None, help="stop after so many")
    parser.add_argument("--engine", action="append", choices=sorted(ENGINES), help="only these")
    parser.add_argument("--store", type=Path, default=STORED, help="folder for failures")
    options = parser.parse_args()
    seed = secrets.randbelow(10**9) if options.seed is None else options.seed
    print(f"first seed {seed}", flush=True)
    engines = {name: ENGINES[name] for name in options.engine or ENGINES}
    seeds = itertools.islice(itertools.count(seed), options.cases)
    tally = fuzz(engines, seeds, Deadline.after(options.seconds), options.store, case_of=mixed_case)
    print("\n".join(tally.lines()))
    return int(bool(tally.failures))


if __name__ == "__main__":
    sys.exit(main())

"""The memory limit: what users may write, and frontiers that wait on disk without changing a verdict."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from verifier.errors import OptionError
from verifier.memory import machine_bytes, parse_memory, resident_bytes
from verifier.search.spill import Spill


@pytest.mark.parametrize(
    ("text", "size"),
    [("8G", 8 * 2**30), ("8", 8 * 2**30), ("500M", 500 * 2**20), ("1.5gb", 3 * 2**29), (" 2 T ", 2 * 2**40)],
)
def test_sizes(text, size):
    assert parse_memory(text) == size


def test_a_share_is_of_the_machine():
    assert parse_memory("50%") == pytest.approx(machine_bytes() / 2, abs=1)


@pytest.mark.parametrize("text", ["", "%", "lots", "-3G", "0", "nan", "infG", "1K", "8X"])
def test_nonsense_is_one_sentence(text):
    with pytest.raises(OptionError, match="memory limit"):
        parse_memory(text)


def test_resident_memory_grows_with_what_is_held():
    before = resident_bytes()
    held = torch.ones(2**24, dtype=torch.float64)
    assert resident_bytes() - before > 0.9 * held.numel() * 8


def test_resident_memory_of_another_process():
    assert resident_bytes(os.getpid()) > 2**20
    ended = subprocess.Popen([sys.executable, "-c", "pass"])
    ended.wait()
    assert resident_bytes(ended.pid) == 0


def test_the_worst_chunk_comes_back_first():
    spill = Spill()
    spill.push(["a"], 1, {0: -1.0, 1: -3.0})
    spill.push(["b", "c"], 2, {0: -5.0})
    assert len(spill) == 3
    assert spill.lowest == {0: -5.0, 1: -3.0}
    assert spill.pop() == ["b", "c"]
    assert spill.lowest == {0: -1.0, 1: -3.0}
    assert spill.pop() == ["a"]
    assert len(spill) == 0
    with pytest.raises(IndexError):
        spill.pop()

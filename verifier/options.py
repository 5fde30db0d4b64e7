"""Checks of the options that users type; each bad value is one sentence (OptionError)."""

from __future__ import annotations

from enum import StrEnum

from verifier.errors import OptionError


class Trust(StrEnum):
    """The weakest evidence that may be reported as ``unsat``; anything weaker becomes ``unknown``."""

    RIGOROUS = "rigorous"
    SOLVER = "solver"


def parse_trust(text: str) -> Trust:
    try:
        return Trust(text)
    except ValueError:
        raise OptionError(f"unknown level of trust {text!r}; use rigorous or solver") from None


def positive_seconds(timeout: float) -> float:
    """The timeout itself; raises OptionError unless it is a positive, finite number of seconds."""
    if not 0 < timeout < float("inf"):
        raise OptionError(f"the timeout is {timeout:g} seconds; give a positive number")
    return float(timeout)


def check_device(device: str) -> None:
    """Raises OptionError unless torch can compute on ``device``."""
    if device == "cpu":
        return
    kind, _, number = device.partition(":")
    if kind != "cuda" or not (number == "" or number.isdecimal()):
        raise OptionError(f"unknown device {device!r}; use cpu or cuda")
    import torch

    if int(number or 0) >= torch.cuda.device_count():
        raise OptionError(f"torch sees no CUDA GPU for the device {device!r} here; use --device cpu")


def limit_threads(threads: int) -> None:
    """Set how many threads torch may use; raises OptionError for fewer than one."""
    if threads < 1:
        raise OptionError(f"the number of threads is {threads}; give at least 1")
    import torch

    torch.set_num_threads(threads)

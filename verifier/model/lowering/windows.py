"""Where the windows of Conv and pooling lie: auto_pad, strides, dilations and ceil_mode on each axis."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from verifier.model.lowering.call import Call, UnsupportedError
from verifier.model.operators.affine import Shape


@dataclass(frozen=True)
class Axis:
    """The windows along one axis.

    size: of the input; before, after: padding; count: number of windows.  With ceil_mode the last windows may
    reach beyond the padding.
    """

    size: int
    kernel: int
    stride: int
    dilation: int
    before: int
    after: int
    count: int

    @property
    def reach(self) -> int:
        """How many entries a window spans."""
        return (self.kernel - 1) * self.dilation + 1

    @property
    def overhang(self) -> int:
        """How far the last window reaches beyond the padded input; negative where entries are left over."""
        return (self.count - 1) * self.stride + self.reach - (self.size + self.before + self.after)

    def places(self) -> NDArray[np.int64]:
        """(count, kernel): the input position of every window entry, which may lie in the padding."""
        starts = np.arange(self.count) * self.stride - self.before
        return starts[:, None] + np.arange(self.kernel) * self.dilation


def axes(call: Call, spatial: Shape, kernel: Shape) -> tuple[Axis, ...]:
    """Read strides, pads, dilations, auto_pad and ceil_mode; spatial, kernel: one size per axis."""
    n = len(spatial)
    strides = call.attribute("strides") or (1,) * n
    dilations = call.attribute("dilations") or (1,) * n
    pads = call.attribute("pads") or (0,) * (2 * n)
    auto_pad = call.attribute("auto_pad", "NOTSET")
    ceil_mode = bool(call.attribute("ceil_mode", 0))
    if any(pad < 0 for pad in pads):
        raise UnsupportedError(f"attribute pads = {tuple(pads)} (negative)")
    found = tuple(
        _axis(spatial[i], kernel[i], strides[i], dilations[i], pads[i], pads[n + i], auto_pad, ceil_mode)
        for i in range(n)
    )
    if any(axis.count < 1 for axis in found):
        raise UnsupportedError(f"its window of {kernel} is larger than its padded input of {spatial}")
    return found


def _axis(
    size: int,
    kernel: int,
    stride: int,
    dilation: int,
    before: int,
    after: int,
    auto_pad: str,
    ceil_mode: bool,
) -> Axis:
    reach = (kernel - 1) * dilation + 1
    if auto_pad in ("SAME_UPPER", "SAME_LOWER"):
        count = -(-size // stride)
        padding = max((count - 1) * stride + reach - size, 0)
        small, large = padding // 2, padding - padding // 2
        before, after = (small, large) if auto_pad == "SAME_UPPER" else (large, small)
        return Axis(size, kernel, stride, dilation, before, after, count)
    if auto_pad == "VALID":
        before = after = 0
    free = size + before + after - reach
    count = (-(-free // stride) if ceil_mode else free // stride) + 1
    if ceil_mode and (count - 1) * stride >= size + before:
        count -= 1  # a window that would start in the padding after the input is left out
    return Axis(size, kernel, stride, dilation, before, after, count)

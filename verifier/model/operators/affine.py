"""What every affine operator offers to bounds and encodings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import scipy.sparse as sp
from torch import Tensor

Shape = tuple[int, ...]


@runtime_checkable
class Affine(Protocol):
    """``z = M x + b``; see the package docstring for the shapes.

    ulps: every stored entry of M is within a relative error of ``ulps * 2**-53`` of the exact one.
    offset_error: every stored entry of b is within this absolute error of the exact one; None means exact.
    Both are 0 for parameters that come straight from the file, and grow when simplifiers fuse operators.
    """

    @property
    def ulps(self) -> int: ...
    @property
    def offset_error(self) -> Tensor | None: ...
    def output_shape(self, shapes: tuple[Shape, ...]) -> Shape: ...
    # Operators take one tensor or several; a plain method here would demand that all take any number.
    @property
    def forward(self) -> Callable[..., Tensor]: ...
    def adjoint(self, rows: Tensor, shapes: tuple[Shape, ...]) -> tuple[Tensor, ...]: ...
    @property
    def absolute(self) -> Callable[..., Tensor]: ...
    def offset(self, shape: Shape) -> Tensor | None: ...
    def matrix(self, shapes: tuple[Shape, ...]) -> tuple[sp.csr_array, ...]: ...
    def terms(self, shapes: tuple[Shape, ...]) -> int: ...

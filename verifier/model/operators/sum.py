"""The sum of several nodes of one shape: residual Add, Sub after a sign change."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import reduce
from operator import add

import scipy.sparse as sp
from torch import Tensor

from verifier.model.operators.affine import Shape


@dataclass(frozen=True, eq=False)
class Sum:
    """``y = x_1 + ... + x_k``; all shapes equal."""

    ulps = 0
    offset_error = None

    def output_shape(self, shapes: tuple[Shape, ...]) -> Shape:
        return shapes[0]

    def forward(self, *inputs: Tensor) -> Tensor:
        return reduce(add, inputs)

    def adjoint(self, rows: Tensor, shapes: tuple[Shape, ...]) -> tuple[Tensor, ...]:
        return (rows,) * len(shapes)

    def absolute(self, *magnitudes: Tensor) -> Tensor:
        return reduce(add, magnitudes)

    def offset(self, shape: Shape) -> Tensor | None:
        return None

    def matrix(self, shapes: tuple[Shape, ...]) -> tuple[sp.csr_array, ...]:
        return (sp.csr_array(sp.eye_array(math.prod(shapes[0]), format="csr")),) * len(shapes)

    def terms(self, shapes: tuple[Shape, ...]) -> int:
        return len(shapes)

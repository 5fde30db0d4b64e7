"""A new shape for the same values in C order: Reshape, Flatten, Squeeze, Unsqueeze, Identity."""

from __future__ import annotations

import math
from dataclasses import dataclass

import scipy.sparse as sp
from torch import Tensor

from verifier.model.operators.affine import Shape


@dataclass(frozen=True, eq=False)
class Reshape:
    """shape: of one sample."""

    shape: Shape

    ulps = 0
    offset_error = None

    def output_shape(self, shapes: tuple[Shape, ...]) -> Shape:
        return self.shape

    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(x.shape[0], *self.shape)

    def adjoint(self, rows: Tensor, shapes: tuple[Shape, ...]) -> tuple[Tensor, ...]:
        return (rows.reshape(*rows.shape[:2], *shapes[0]),)

    def absolute(self, magnitude: Tensor) -> Tensor:
        return self.forward(magnitude)

    def offset(self, shape: Shape) -> Tensor | None:
        return None

    def matrix(self, shapes: tuple[Shape, ...]) -> tuple[sp.csr_array, ...]:
        return (sp.csr_array(sp.eye_array(math.prod(self.shape), format="csr")),)

    def terms(self, shapes: tuple[Shape, ...]) -> int:
        return 1

"""Elementwise ``y = a x + c``: BatchNormalization, and Add, Sub, Mul and Div by constants."""

from __future__ import annotations

from dataclasses import dataclass

import scipy.sparse as sp
from torch import Tensor

from verifier.model.operators.affine import Shape


@dataclass(frozen=True, eq=False)
class Scale:
    """scale, shift: broadcastable to the input's shape without enlarging it."""

    scale: Tensor
    shift: Tensor
    ulps: int = 0
    offset_error: Tensor | None = None

    def output_shape(self, shapes: tuple[Shape, ...]) -> Shape:
        return shapes[0]

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale + self.shift

    def adjoint(self, rows: Tensor, shapes: tuple[Shape, ...]) -> tuple[Tensor, ...]:
        return (rows * self.scale,)

    def absolute(self, magnitude: Tensor) -> Tensor:
        return magnitude * self.scale.abs()

    def offset(self, shape: Shape) -> Tensor | None:
        return self.shift.expand(shape)

    def matrix(self, shapes: tuple[Shape, ...]) -> tuple[sp.csr_array, ...]:
        diagonal = self.scale.expand(shapes[0]).reshape(-1).cpu().numpy()
        return (sp.csr_array(sp.diags_array(diagonal, format="csr")),)

    def terms(self, shapes: tuple[Shape, ...]) -> int:
        return 1

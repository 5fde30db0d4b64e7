"""Dense layers: ``y = x W^T + b`` on the last axis."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import scipy.sparse as sp
import torch
from torch import Tensor

from verifier.model.operators.affine import Shape


@dataclass(frozen=True, eq=False)
class Linear:
    """weight: (out, in); bias: (out,).  Acts on the last axis; leading axes are kept."""

    weight: Tensor
    bias: Tensor
    ulps: int = 0
    offset_error: Tensor | None = None

    @cached_property
    def _size(self) -> Tensor:
        """Kept, since it takes longer to make than to multiply with."""
        return self.weight.abs()

    def output_shape(self, shapes: tuple[Shape, ...]) -> Shape:
        return (*shapes[0][:-1], self.weight.shape[0])

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight.T + self.bias

    def adjoint(self, rows: Tensor, shapes: tuple[Shape, ...]) -> tuple[Tensor, ...]:
        return (rows @ self.weight,)

    def absolute(self, magnitude: Tensor) -> Tensor:
        return magnitude @ self._size.T

    def offset(self, shape: Shape) -> Tensor | None:
        return self.bias.expand(shape)

    def matrix(self, shapes: tuple[Shape, ...]) -> tuple[sp.csr_array, ...]:
        weight = sp.csr_array(self.weight.cpu().numpy())
        copies = math.prod(shapes[0][:-1])
        return (sp.csr_array(sp.kron(sp.eye_array(copies), weight, format="csr")) if copies > 1 else weight,)

    def terms(self, shapes: tuple[Shape, ...]) -> int:
        return max(self.weight.shape)

    @staticmethod
    def zeros(n_in: int, n_out: int) -> Linear:
        """The constant zero map, for building constant networks."""
        return Linear(torch.zeros(n_out, n_in, dtype=torch.float64), torch.zeros(n_out, dtype=torch.float64))

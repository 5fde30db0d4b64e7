"""Concatenation along one axis."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from verifier.model.operators.affine import Shape


@dataclass(frozen=True, eq=False)
class Concat:
    """axis: of one sample's shape, not negative."""

    axis: int

    ulps = 0
    offset_error = None

    def output_shape(self, shapes: tuple[Shape, ...]) -> Shape:
        length = sum(shape[self.axis] for shape in shapes)
        return (*shapes[0][: self.axis], length, *shapes[0][self.axis + 1 :])

    def forward(self, *inputs: Tensor) -> Tensor:
        return torch.cat(inputs, dim=self.axis + 1)

    def adjoint(self, rows: Tensor, shapes: tuple[Shape, ...]) -> tuple[Tensor, ...]:
        return torch.split(rows, [shape[self.axis] for shape in shapes], dim=self.axis + 2)

    def absolute(self, *magnitudes: Tensor) -> Tensor:
        return self.forward(*magnitudes)

    def offset(self, shape: Shape) -> Tensor | None:
        return None

    def matrix(self, shapes: tuple[Shape, ...]) -> tuple[sp.csr_array, ...]:
        places = np.arange(math.prod(self.output_shape(shapes))).reshape(self.output_shape(shapes))
        cuts = np.cumsum([shape[self.axis] for shape in shapes])[:-1]
        parts = np.split(places, cuts, axis=self.axis)
        return tuple(
            sp.csr_array((np.ones(part.size), (part.ravel(), np.arange(part.size))), shape=(places.size, part.size))
            for part in parts
        )

    def terms(self, shapes: tuple[Shape, ...]) -> int:
        return 1

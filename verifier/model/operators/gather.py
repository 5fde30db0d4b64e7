"""Moving values: Transpose, Slice, Gather by constants, Expand and zero Pad."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from verifier.model.operators.affine import Shape


@dataclass(frozen=True, eq=False)
class Gather:
    """``y.flat[i] = x.flat[index[i]]``, or 0 where ``index[i]`` is -1.

    index: int64, of the output's shape, entries in -1 .. input size - 1.
    """

    index: Tensor

    ulps = 0
    offset_error = None

    def output_shape(self, shapes: tuple[Shape, ...]) -> Shape:
        return tuple(self.index.shape)

    def forward(self, x: Tensor) -> Tensor:
        flat = self.index.reshape(-1)
        taken = x.reshape(x.shape[0], -1)[:, flat.clamp(min=0)]
        return (taken * (flat >= 0)).reshape(x.shape[0], *self.index.shape)

    def adjoint(self, rows: Tensor, shapes: tuple[Shape, ...]) -> tuple[Tensor, ...]:
        flat = self.index.reshape(-1)
        kept = flat >= 0
        source = rows.reshape(*rows.shape[:2], len(flat))
        target = torch.zeros(*rows.shape[:2], math.prod(shapes[0]), dtype=rows.dtype, device=rows.device)
        target.index_add_(2, flat[kept], source[:, :, kept])
        return (target.reshape(*rows.shape[:2], *shapes[0]),)

    def absolute(self, magnitude: Tensor) -> Tensor:
        return self.forward(magnitude)

    def offset(self, shape: Shape) -> Tensor | None:
        return None

    def matrix(self, shapes: tuple[Shape, ...]) -> tuple[sp.csr_array, ...]:
        flat = self.index.reshape(-1).cpu().numpy()
        rows = np.flatnonzero(flat >= 0)
        shape = (flat.size, math.prod(shapes[0]))
        return (sp.csr_array((np.ones(rows.size), (rows, flat[rows])), shape=shape),)

    def terms(self, shapes: tuple[Shape, ...]) -> int:
        kept = self.index[self.index >= 0]
        return int(torch.bincount(kept).max()) if kept.numel() else 1

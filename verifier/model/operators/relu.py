"""The input placeholder and the one nonlinearity, ``max(x, 0)``.

LeakyRelu, Clip and the like are lowered to Relu, Scale and Sum when a model is read; the lowering loses
nothing in interval or CROWN bounds (see ``verifier.model.lowering``).
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from verifier.model.operators.affine import Shape


@dataclass(frozen=True, eq=False)
class Input:
    """The network's input; always node 0."""

    shape: Shape

    def output_shape(self, shapes: tuple[Shape, ...]) -> Shape:
        return self.shape


@dataclass(frozen=True, eq=False)
class Relu:
    """``max(x, 0)``, elementwise."""

    def output_shape(self, shapes: tuple[Shape, ...]) -> Shape:
        return shapes[0]

    def forward(self, x: Tensor) -> Tensor:
        return x.clamp(min=0)

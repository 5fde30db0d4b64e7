"""Two-dimensional convolution; one-dimensional ones and average pooling are lowered to it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
import torch.nn.functional as F
from torch import Tensor

from verifier.model.operators.affine import Shape


@dataclass(frozen=True, eq=False)
class Conv:
    """Cross-correlation as ONNX Conv defines it, on one sample's shape (N, C, H, W).

    weight: (out, C / groups, kernel_h, kernel_w); bias: (out,).
    padding: zeros added at top, left, bottom, right.
    """

    weight: Tensor
    bias: Tensor
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1
    ulps: int = 0
    offset_error: Tensor | None = None

    def output_shape(self, shapes: tuple[Shape, ...]) -> Shape:
        n, _, height, width = shapes[0]
        top, left, bottom, right = self.padding
        sizes = (height + top + bottom, width + left + right)
        out = [
            (size - d * (k - 1) - 1) // s + 1
            for size, k, s, d in zip(sizes, self.weight.shape[2:], self.stride, self.dilation, strict=True)
        ]
        return (n, self.weight.shape[0], *out)

    def forward(self, x: Tensor) -> Tensor:
        return self._convolve(x, self.weight, self.bias)

    def absolute(self, magnitude: Tensor) -> Tensor:
        return self._convolve(magnitude, self.weight.abs(), None)

    def adjoint(self, rows: Tensor, shapes: tuple[Shape, ...]) -> tuple[Tensor, ...]:
        n, channels, height, width = shapes[0]
        top, left, bottom, right = self.padding
        padded = (height + top + bottom, width + left + right)
        # What the stride leaves uncovered at the bottom and right belongs to no window.
        slack = [
            (size - d * (k - 1) - 1) % s
            for size, k, s, d in zip(padded, self.weight.shape[2:], self.stride, self.dilation, strict=True)
        ]
        flat = rows.reshape(-1, *rows.shape[3:])
        grown = F.conv_transpose2d(
            flat,
            self.weight,
            stride=self.stride,
            output_padding=slack,
            groups=self.groups,
            dilation=self.dilation,
        )
        cropped = grown[:, :, top : top + height, left : left + width]
        return (cropped.reshape(*rows.shape[:2], n, channels, height, width),)

    def offset(self, shape: Shape) -> Tensor | None:
        return self.bias.reshape(1, -1, 1, 1).expand(shape)

    def matrix(self, shapes: tuple[Shape, ...]) -> tuple[sp.csr_array, ...]:
        n, channels, height, width = shapes[0]
        _, out, out_h, out_w = self.output_shape(shapes)
        weight = self.weight.cpu().numpy()
        o, c, i, j = (axis.ravel() for axis in np.indices(weight.shape))
        y, x = (axis.reshape(-1, 1) for axis in np.indices((out_h, out_w)))
        source_c = c + (o // (out // self.groups)) * weight.shape[1]
        source_y = y * self.stride[0] + i * self.dilation[0] - self.padding[0]
        source_x = x * self.stride[1] + j * self.dilation[1] - self.padding[1]
        inside = (source_y >= 0) & (source_y < height) & (source_x >= 0) & (source_x < width)
        target = np.broadcast_to((o * out_h + y) * out_w + x, inside.shape)[inside]
        source = ((source_c * height + source_y) * width + source_x)[inside]
        values = np.broadcast_to(weight.ravel(), inside.shape)[inside]
        shape = (out * out_h * out_w, channels * height * width)
        block = sp.csr_array((values, (target, source)), shape=shape)
        return (sp.csr_array(sp.kron(sp.eye_array(n), block, format="csr")) if n > 1 else block,)

    def terms(self, shapes: tuple[Shape, ...]) -> int:
        out, per_group, kernel_h, kernel_w = self.weight.shape
        return max(per_group, out // self.groups) * kernel_h * kernel_w

    def _convolve(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        flat = x.reshape(math.prod(x.shape[:2]), *x.shape[2:])
        top, left, bottom, right = self.padding
        if (top, left) == (bottom, right):
            out = F.conv2d(flat, weight, bias, self.stride, (top, left), self.dilation, self.groups)
        else:
            padded = F.pad(flat, (left, right, top, bottom))
            out = F.conv2d(padded, weight, bias, self.stride, 0, self.dilation, self.groups)
        return out.reshape(*x.shape[:2], *out.shape[1:])

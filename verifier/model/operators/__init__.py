"""The small operator set every network is lowered to.

All operators but ``Relu`` are affine, ``z = M x + b``; each is one frozen dataclass in its own file with

    output_shape(shapes)          shape of z for one sample
    forward(*inputs)              M x + b for a batch, [B, *input] -> [B, *output]
    adjoint(rows, shapes)         rows M for a batch of rows, [B, R, *output] -> [B, R, *input] per input
    absolute(*magnitudes)         |M| m, no offset: what interval and rounding bounds need
    offset(shape)                 b as a tensor of that shape, or None where b = 0
    matrix(shapes)                M as sparse CSR matrices over C-order flattened inputs, one per input
    terms(shapes)                 the longest sum in one entry of M x or of (row M), at least 1
    ulps, offset_error            how far the stored M and b may be from the exact ones (see Affine)

``shapes`` are the shapes of the inputs for one sample.  They are full ONNX shapes, the leading 1 included;
the batch axes B and R are the engine's own and always in front.
"""

from verifier.model.operators.affine import Affine
from verifier.model.operators.concat import Concat
from verifier.model.operators.conv import Conv
from verifier.model.operators.gather import Gather
from verifier.model.operators.linear import Linear
from verifier.model.operators.relu import Input, Relu
from verifier.model.operators.reshape import Reshape
from verifier.model.operators.scale import Scale
from verifier.model.operators.sum import Sum

Operator = Input | Relu | Affine

__all__ = [
    "Affine",
    "Concat",
    "Conv",
    "Gather",
    "Input",
    "Linear",
    "Operator",
    "Relu",
    "Reshape",
    "Scale",
    "Sum",
]

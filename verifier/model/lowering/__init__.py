"""One rule per ONNX operator, from ONNX nodes to the IR's small operator set; see ``registry``."""

from verifier.model.lowering import (
    activations,
    convolution,
    dense,
    elementwise,
    extrema,
    movement,
    normalization,
    pooling,
    reductions,
)
from verifier.model.lowering.registry import Rules

RULES: Rules = {
    **activations.RULES,
    **convolution.RULES,
    **dense.RULES,
    **elementwise.RULES,
    **extrema.RULES,
    **movement.RULES,
    **normalization.RULES,
    **pooling.RULES,
    **reductions.RULES,
}

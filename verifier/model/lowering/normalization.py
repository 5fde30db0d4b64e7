"""BatchNormalization at inference: a scale and a shift per channel.

    scale = gamma / sqrt(var + epsilon)        shift = beta - mean * scale

in float64.  The scale takes an addition (halved by the root), a root and a division: under 3 ulps.  The shift
can cancel, so its error is absolute: 3 ulps of the scale, one of the product and one of the difference, all
relative to |beta| + |mean * scale|.
"""

from __future__ import annotations

import numpy as np

from verifier.errors import ModelError
from verifier.model.lowering.call import Call, UnsupportedError, Value
from verifier.model.lowering.registry import Rules
from verifier.model.rounding import COVER, UNIT

SCALE_ULPS = 3
SHIFT_ULPS = 5


def batch_normalization(call: Call) -> Value:
    call.ignore("momentum")
    if call.attribute("training_mode", 0):
        raise UnsupportedError("attribute training_mode = 1; export the model for inference")
    if call.attribute("spatial", 1) != 1:
        raise UnsupportedError("attribute spatial = 0")
    if any(output in call.needed for output in range(1, 5)):
        raise UnsupportedError("its training outputs are used; export the model for inference")
    epsilon = float(call.attribute("epsilon", np.float32(1e-5)))
    x = call.variable(0)
    gamma, beta, mean, variance = (
        call.floats(i + 1, role) for i, role in enumerate(("scale", "bias", "mean", "variance"))
    )
    if (variance + epsilon <= 0).any():
        raise ModelError(f"{call} has a variance that is not positive; train or export the model again")
    scale = gamma / np.sqrt(variance + epsilon)
    shifted = mean * scale
    shift = beta - shifted
    error = SHIFT_ULPS * UNIT * COVER * (np.abs(beta) + np.abs(shifted))
    column = (-1, *(1,) * (len(x.shape) - 2))
    return call.builder.scale(x, scale.reshape(column), shift.reshape(column), SCALE_ULPS, error.reshape(column))


RULES: Rules = {"BatchNormalization": batch_normalization}

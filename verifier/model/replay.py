"""The model itself, run by onnxruntime: the referee for counterexamples and for the load check.

The session is made from the exact bytes of the file with onnxruntime's default optimisations, on one thread,
so that a point gives the same outputs here as for anyone who runs the file the ordinary way.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from verifier.errors import ModelError
from verifier.model.diagnostics import first_line
from verifier.model.session import open_session

Array = NDArray[np.float64]
InputType = Literal["float32", "float64"]

ELEMENT_TYPES: dict[str, InputType] = {"tensor(float)": "float32", "tensor(double)": "float64"}


class OnnxReplay:
    """One input, one output, any shapes; a dynamic first dimension of the input is taken as 1.

    model: the bytes of the (uncompressed) ONNX file.  folder: where its external data lie.
    Raises ModelError when onnxruntime refuses the model.
    """

    def __init__(self, model: bytes, folder: Path | None = None, threads: int = 1) -> None:
        try:
            self._session = open_session(model, folder, threads)
        except Exception as error:  # onnxruntime raises a dozen classes of its own, most of them bare
            raise ModelError(
                f"onnxruntime {onnxruntime.__version__} cannot load the model ({first_line(error)}); export it "
                "again, or update onnxruntime"
            ) from None
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        if len(inputs) != 1 or len(outputs) != 1:
            raise ModelError(
                f"the model has {len(inputs)} inputs and {len(outputs)} outputs; exactly one of each is supported"
            )
        source, target = inputs[0], outputs[0]
        if source.type not in ELEMENT_TYPES:
            raise ModelError(f"the input {source.name!r} is a {source.type}; only float and double are supported")
        self._input_name, self._output_name = source.name, target.name
        self._input_dtype = ELEMENT_TYPES[source.type]
        shape = [size if isinstance(size, int) and size > 0 else -1 for size in source.shape]
        self._batched = bool(shape) and shape[0] == -1
        if self._batched:
            shape[0] = 1
        self._shape = tuple(shape)

    @property
    def input_dtype(self) -> InputType:
        """What the model takes."""
        return self._input_dtype

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of one input, the leading 1 included."""
        return self._shape

    def run(self, x: Array) -> Array:
        """Outputs (n_outputs,) as float64 for one input x: (n_inputs,).

        x is cast to the input type first; pass points that it represents (see ``representable``).
        Raises ModelError when onnxruntime fails.
        """
        return self._run(np.asarray(x).reshape(self._shape)).reshape(-1)

    def run_batch(self, points: Array) -> Array:
        """Outputs (B, n_outputs) for points (B, n_inputs): one call where the model has a batch axis.

        For sampling only.  The last bits can differ from ``run``, which decides on counterexamples.
        """
        points = np.asarray(points)
        if self._batched and len(points) > 1:
            outputs = self._run(points.reshape(len(points), *self._shape[1:]))
            if outputs.ndim and outputs.shape[0] == len(points):
                return outputs.reshape(len(points), -1)
        return np.stack([self.run(point) for point in points])

    def representable(self, x: Array, lower: Array, upper: Array) -> Array:
        """The point of the model's input type nearest to x and inside the box; see ``nearest_inside``."""
        return nearest_inside(x, lower, upper, self._input_dtype)

    def _run(self, x: NDArray[np.generic]) -> Array:
        feed = {self._input_name: np.ascontiguousarray(x, dtype=self._input_dtype)}
        try:
            (output,) = self._session.run([self._output_name], feed)
        except Exception as error:
            raise ModelError(f"onnxruntime fails on an input of shape {x.shape}: {first_line(error)}") from None
        return np.asarray(output).astype(np.float64)


def nearest_inside(x: Array, lower: Array, upper: Array, dtype: InputType = "float32") -> Array:
    """x rounded to values of ``dtype`` inside [lower, upper]; all (n,), returned as float64.

    Where [lower, upper] holds no value of ``dtype`` at all (a side fixed to 0.1), the value nearest to the
    clipped x is taken: it is outside by less than one unit in the last place, and nothing better exists.
    """
    clipped = np.clip(np.asarray(x, dtype=np.float64), lower, upper)
    if dtype == "float64":
        return clipped
    limit = np.finfo(np.float32).max
    nearest = np.clip(clipped, -limit, limit).astype(np.float32)
    down = np.where(nearest > upper, np.nextafter(nearest, -limit), nearest)
    inside = np.where(down < lower, np.nextafter(down, limit), down)
    fits = (inside >= lower) & (inside <= upper)
    return np.where(fits, inside, nearest).astype(np.float64)

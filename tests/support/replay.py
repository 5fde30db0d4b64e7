"""A replay for tests without an ONNX file: the IR itself in float64, which represents every point."""

from __future__ import annotations

import numpy as np
import torch

from verifier.model.network import Network


class TorchReplay:
    """Satisfies ``verifier.query.Replay``."""

    def __init__(self, network: Network) -> None:
        self._network = network

    def run(self, x: np.ndarray) -> np.ndarray:
        return self._network.forward(torch.from_numpy(np.asarray(x, np.float64))[None])[0].numpy()

    def representable(self, x: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> np.ndarray:
        return np.clip(x, lower, upper)

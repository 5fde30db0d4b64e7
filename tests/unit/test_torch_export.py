"""Torch modules as models: what is computed stays the same, and what has no rule is named."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import verifier
from verifier.errors import ModelError


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 4, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(4)
        self.second = nn.Conv2d(4, 4, 3, padding=1, groups=2)
        self.pool = nn.MaxPool2d(2)
        self.last = nn.Linear(64, 10)
        self.shift = nn.Parameter(torch.full((10,), 0.25))

    def forward(self, x):
        y = torch.relu(self.norm(self.first(x)))
        y = self.pool(y + self.second(y)).relu()
        return 2 * self.last(y.flatten(1) - 0.5) + self.shift


MODULES = {
    "dense": (nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Dropout(), nn.Linear(16, 3)), (1, 1, 8, 8)),
    "leaky": (nn.Sequential(nn.Linear(5, 7, bias=False), nn.LeakyReLU(0.1), nn.Linear(7, 2)), (1, 5)),
    "clipped": (nn.Sequential(nn.Linear(5, 7), nn.ReLU6(), nn.Hardtanh(-0.5, 0.5), nn.Linear(7, 2)), (1, 5)),
    "pooled": (
        nn.Sequential(
            nn.Unflatten(1, (1, 8, 8)), nn.Conv2d(1, 3, 3, stride=2, padding=1), nn.ReLU(), nn.AvgPool2d(2),
            nn.Flatten(), nn.BatchNorm1d(12), nn.Linear(12, 4),
        ),
        (1, 64),
    ),
    "one-dimensional": (nn.Sequential(nn.Conv1d(2, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(18, 2)), (1, 2, 8)),
    "residual": (Residual(), (1, 1, 8, 8)),
}  # fmt: skip


@pytest.mark.parametrize("name", MODULES)
def test_the_model_computes_what_the_module_does(name):
    module, shape = MODULES[name]
    torch.manual_seed(0)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d):
            part.running_mean.normal_()
            part.running_var.uniform_(0.5, 2)
    model = verifier.load(module, torch.zeros(3, *shape[1:]))
    assert module.training  # as it was
    module.eval()
    for _ in range(5):
        x = torch.randn(shape)
        expected = module(x).detach().double().numpy().ravel()
        found = model.network.forward(x.double().reshape(1, -1))[0].numpy()
        assert abs(found - expected).max() <= 1e-4 * max(1, abs(expected).max())
        assert abs(model.replay.run(x.double().numpy().ravel()) - expected).max() <= 1e-4 * max(1, abs(expected).max())
    module.train()


def test_a_module_can_be_asked_about():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 3))
    model = verifier.load(module, torch.zeros(1, 3))
    found = verifier.certified_radius(model, [0.5, 0.5, 0.5], timeout=20)
    if found.witness is not None:
        scores = module(torch.tensor(found.witness, dtype=torch.float32)[None])[0]
        assert scores[found.predicted] >= scores[found.label] - 1e-5


class Branching(nn.Module):
    def forward(self, x):
        return x if x.sum() > 0 else -x


class Secretive(nn.Module):
    """Gives another answer at every call."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 2)

    def forward(self, x):
        return self.linear(x) + float(torch.rand(()))


@pytest.mark.parametrize(
    ("module", "example", "words"),
    [
        (nn.Sequential(nn.Linear(3, 3), nn.GELU(), nn.Softmax(1)), torch.zeros(1, 3), r"GELU \(1\); Softmax \(2\)"),
        (Branching(), torch.zeros(1, 3), "cannot trace"),
        (Secretive(), torch.zeros(1, 3), "does not compute"),
        (nn.Linear(3, 2), torch.zeros(3), "batch axis"),
        (nn.Linear(3, 2), None, "needs an example"),
        (nn.Sequential(nn.Conv2d(1, 1, 3, padding="same")), torch.zeros(1, 1, 4, 4), "padding 'same'"),
        (nn.Sequential(nn.MaxPool2d(2, ceil_mode=True)), torch.zeros(1, 1, 5, 5), "ceil_mode"),
        (3, torch.zeros(1, 3), "torch.nn.Module"),
    ],
)
def test_what_cannot_be_written_is_named(module, example, words):
    with pytest.raises(ModelError, match=words):
        verifier.load(module, example)

"""Regenerate this folder: two small networks trained on scikit-learn's digits, images, properties, instances.csv.

    python benchmarks/digits/make.py            (needs scikit-learn; about half a minute on one core)

Training is adversarial (Madry et al., "Towards deep learning models resistant to adversarial attacks", 2018), with a
small part of the interval bound loss (Gowal et al., "On the effectiveness of interval bound propagation for training
verifiably robust models", 2018, equation 12): projected gradient descent makes the networks robust, intervals make that
provable, and together they leave something to do between what the cheapest bounds prove and what an attack breaks.

Everything is seeded and runs on one thread.  Other versions of torch or other processors may round differently and
give other weights, so the committed files are the reference, not what a run elsewhere gives.
"""

from __future__ import annotations

import argparse
import csv
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from verifier.model.network import Network, build
from verifier.model.operators import Conv, Input, Linear, Operator, Relu, Reshape
from verifier.model.write import write as write_model
from verifier.vnnlib.robustness import robustness
from verifier.vnnlib.spec import Spec
from verifier.vnnlib.write import write as write_property

Images = NDArray[np.float32]
Labels = NDArray[np.int64]

SIDE, CLASSES = 8, 10
BRIGHTEST = 16
"""Pixels of the data set are whole numbers from 0 to this; divided by it they are exact in float32."""
TEST_IMAGES = 360
EPSILONS = (0.05, 0.1, 0.13, 0.16, 0.2)
IMAGES_PER_CLASS = 2
SECONDS = 60
DEMO_CLASS, DEMO_UNSAT, DEMO_SAT = 3, 0.03, 0.06
"""The demonstration asks about one image of this class, within these distances, for the dense network."""


@dataclass(frozen=True)
class Training:
    """epsilon: of the attacks trained against.  intervals: weight of the interval bound loss."""

    seed: int = 0
    epochs: int = 80
    batch: int = 64
    rate: float = 3e-3
    epsilon: float = 0.1
    attack_steps: int = 5
    intervals: float = 0.02


@dataclass(frozen=True, eq=False)
class Data:
    """images: (n, 64) in [0, 1]; labels: (n,)."""

    images: Tensor
    labels: Tensor


def load_data(seed: int) -> tuple[Data, Data]:
    """Training and test images, shuffled."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(seed).permutation(len(images))
    scaled = torch.from_numpy((images[order] / BRIGHTEST).astype(np.float32))
    known = torch.from_numpy(labels[order].astype(np.int64))
    return (
        Data(scaled[:-TEST_IMAGES], known[:-TEST_IMAGES]),
        Data(scaled[-TEST_IMAGES:], known[-TEST_IMAGES:]),
    )


def dense() -> nn.Sequential:
    """64-32-32-10."""
    sizes = (SIDE * SIDE, 32, 32)
    layers = [layer for n, m in pairwise(sizes) for layer in (nn.Linear(n, m), nn.ReLU())]
    return nn.Sequential(*layers, nn.Linear(sizes[-1], CLASSES))


def convolutional() -> nn.Sequential:
    """Two convolutions with stride 2, from 8x8 to 8 channels of 4x4 to 16 channels of 2x2, and a dense layer."""
    return nn.Sequential(
        nn.Unflatten(1, (1, SIDE, SIDE)),
        nn.Conv2d(1, 8, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 16, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(16 * 2 * 2, CLASSES),
    )


def train(model: nn.Sequential, data: Data, options: Training, generator: torch.Generator) -> None:
    """Train in place; the distance attacked grows over the first half of the epochs."""
    optimiser = torch.optim.Adam(model.parameters(), options.rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, options.epochs)
    for epoch in range(options.epochs):
        epsilon = options.epsilon * min(1.0, 2 * (epoch + 1) / options.epochs)
        order = torch.randperm(len(data.images), generator=generator)
        for batch in order.split(options.batch):
            images, labels = data.images[batch], data.labels[batch]
            attacked = adversarial(model, images, labels, epsilon, options.attack_steps, generator)
            loss = (1 - options.intervals) * functional.cross_entropy(model(attacked), labels)
            worst = worst_scores(model, images, labels, epsilon)
            loss = loss + options.intervals * functional.cross_entropy(worst, labels)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
        schedule.step()


def adversarial(
    model: nn.Sequential, images: Tensor, labels: Tensor, epsilon: float, steps: int, generator: torch.Generator
) -> Tensor:
    """Images within epsilon that the model finds hard."""
    change = epsilon * (2 * torch.rand(images.shape, generator=generator) - 1)
    for _ in range(steps):
        change.requires_grad_(True)
        loss = functional.cross_entropy(model((images + change).clamp(0, 1)), labels)
        (gradient,) = torch.autograd.grad(loss, change)
        change = (change.detach() + 2.5 * epsilon / steps * gradient.sign()).clamp(-epsilon, epsilon)
    return (images + change).clamp(0, 1).detach()


def worst_scores(model: nn.Sequential, images: Tensor, labels: Tensor, epsilon: float) -> Tensor:
    """By intervals: a lower bound on the score of the right class, upper bounds on those of the others."""
    lower, upper = (images - epsilon).clamp(0, 1), (images + epsilon).clamp(0, 1)
    for layer in model:
        if isinstance(layer, nn.Linear | nn.Conv2d):
            centre, radius = layer((lower + upper) / 2), (upper - lower) / 2
            if isinstance(layer, nn.Linear):
                radius = functional.linear(radius, layer.weight.abs())
            else:
                radius = functional.conv2d(radius, layer.weight.abs(), None, layer.stride, layer.padding)
            lower, upper = centre - radius, centre + radius
        else:
            lower, upper = layer(lower), layer(upper)
    return torch.where(functional.one_hot(labels, CLASSES).bool(), lower, upper)


def network(model: nn.Sequential, shape: tuple[int, ...], name: str) -> Network:
    """The trained model as the verifier's own network, for inputs of this shape."""
    nodes: list[tuple[Operator, tuple[int, ...]]] = [(Input(shape), ())]
    for layer in model:
        operator: Operator
        if isinstance(layer, nn.Linear):
            operator = Linear(layer.weight.detach().double(), layer.bias.detach().double())
        elif isinstance(layer, nn.Conv2d):
            sides = (int(layer.padding[0]), int(layer.padding[1]))
            stride = (layer.stride[0], layer.stride[1])
            assert layer.bias is not None
            operator = Conv(layer.weight.detach().double(), layer.bias.detach().double(), stride, sides * 2)
        elif isinstance(layer, nn.ReLU):
            operator = Relu()
        elif isinstance(layer, nn.Flatten):
            operator = Reshape((1, build(nodes).nodes[-1].size))
        else:
            continue  # the input has its shape already
        nodes.append((operator, (len(nodes) - 1,)))
    return build(nodes, name)


def accuracy(model: nn.Sequential, images: Tensor, labels: Tensor) -> float:
    """The part of the images that the model classifies correctly."""
    return float((model(images).argmax(dim=1) == labels).double().mean())


def choose(models: list[nn.Sequential], data: Data) -> tuple[Images, Labels]:
    """The first images of every class that all models classify correctly, class by class."""
    right = torch.stack([model(data.images).argmax(dim=1) == data.labels for model in models]).all(dim=0)
    chosen = [
        int(index)
        for label in range(CLASSES)
        for index in (right & (data.labels == label)).nonzero().flatten()[:IMAGES_PER_CLASS]
    ]
    return data.images[chosen].numpy(), data.labels[chosen].numpy()


def write_properties(folder: Path, images: Images, labels: Labels) -> list[str]:
    """One property per image, the distances in turn.  Returns their paths relative to the folder."""
    (folder / "vnnlib").mkdir(exist_ok=True)
    written = []
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        epsilon = EPSILONS[number % len(EPSILONS)]
        written.append(f"vnnlib/image_{number:02}_eps_{epsilon}.vnnlib")
        write_property(around(image, epsilon, int(label)), folder / written[-1])
    demo = int(np.flatnonzero(labels == DEMO_CLASS)[0])
    for name, epsilon in (("demo_unsat", DEMO_UNSAT), ("demo_sat", DEMO_SAT)):
        write_property(around(images[demo], epsilon, DEMO_CLASS), folder / f"{name}.vnnlib")
    return written


def around(image: Images, epsilon: float, label: int) -> Spec:
    """Another class wins somewhere within epsilon of the image."""
    return robustness(image.astype(np.float64), epsilon, label, CLASSES, (0.0, 1.0))


def main() -> None:
    """Train, print accuracies, write everything."""
    parser = argparse.ArgumentParser(description="Regenerate the digits benchmark.")
    parser.add_argument("--folder", type=Path, default=Path(__file__).resolve().parent)
    folder: Path = parser.parse_args().folder
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    options = Training()
    known, unseen = load_data(options.seed)
    kinds = {"mlp": (dense, (1, SIDE * SIDE)), "conv": (convolutional, (1, 1, SIDE, SIDE))}
    (folder / "onnx").mkdir(parents=True, exist_ok=True)
    models = []
    for name, (make, shape) in kinds.items():
        generator = torch.Generator().manual_seed(options.seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(options.seed)
            model = make()
        train(model, known, options, generator)
        models.append(model)
        write_model(network(model, shape, name), folder / "onnx" / f"{name}.onnx")
        attacked = {
            epsilon: accuracy(
                model, adversarial(model, unseen.images, unseen.labels, epsilon, 40, generator), unseen.labels
            )
            for epsilon in EPSILONS
        }
        under_attack = ", ".join(f"{value:.1%} at {epsilon}" for epsilon, value in attacked.items())
        print(f"{name}: accuracy {accuracy(model, unseen.images, unseen.labels):.1%}, under attack {under_attack}")
    images, labels = choose(models, unseen)
    np.savez(folder / "images.npz", images=images, labels=labels)
    properties = write_properties(folder, images, labels)
    with (folder / "instances.csv").open("w", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerows(("onnx/mlp.onnx", f"{name}.vnnlib", SECONDS) for name in ("demo_unsat", "demo_sat"))
        rows.writerows((f"onnx/{name}.onnx", path, SECONDS) for name in kinds for path in properties)


if __name__ == "__main__":
    main()

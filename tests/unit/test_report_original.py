"""The original point is recovered from its clipped box."""

from __future__ import annotations

import numpy as np
import pytest

from verifier.report.original import recover_original


@pytest.mark.parametrize("epsilon", [0.001, 0.05, 0.3])
@pytest.mark.parametrize("seed", range(5))
def test_images_in_the_unit_range(epsilon: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    image = np.clip(rng.normal(0.5, 0.6, size=784), 0, 1)
    lower, upper = np.clip(image - epsilon, 0, 1), np.clip(image + epsilon, 0, 1)
    np.testing.assert_allclose(recover_original(lower, upper), image, atol=1e-12)


def test_bounds_written_with_float32_noise() -> None:
    rng = np.random.default_rng(0)
    image = np.clip(rng.normal(0.3, 0.5, size=784), 0, 1)
    lower, upper = (np.clip(image + e, 0, 1).astype(np.float32).astype(np.float64) for e in (-0.05, 0.05))
    np.testing.assert_allclose(recover_original(lower, upper, (1, 784, 1)), image, atol=1e-6)


@pytest.mark.parametrize("channels_last", [False, True])
def test_every_channel_has_its_own_range(channels_last: bool) -> None:
    rng = np.random.default_rng(1)
    image = np.clip(rng.normal(0.5, 0.6, size=(32, 32, 3)), 0, 1)
    mean, deviation = np.array([0.49, 0.48, 0.45]), np.array([0.2, 0.25, 0.3])
    sides = [np.clip(image + e, 0, 1) for e in (-0.03, 0.03)]
    lower, upper, wanted = ((side - mean) / deviation for side in (*sides, image))
    if not channels_last:
        lower, upper, wanted = (np.moveaxis(side, -1, 0) for side in (lower, upper, wanted))
    found = recover_original(lower.ravel(), upper.ravel(), (1, *wanted.shape))
    np.testing.assert_allclose(found, wanted.ravel(), atol=1e-12)


def test_an_unclipped_box_gives_its_centre() -> None:
    centre = np.array([0.2, -4.0, 7.0])
    np.testing.assert_allclose(recover_original(centre - 0.1, centre + 0.1), centre)


def test_boxes_that_were_never_a_ball_give_a_point_inside() -> None:
    lower, upper = np.array([0.6, -0.5, -0.5, 0.45, -0.5]), np.array([0.68, 0.5, 0.5, 0.5, -0.45])
    found = recover_original(lower, upper, (1, 1, 1, 5))
    assert (lower <= found).all()
    assert (found <= upper).all()
    np.testing.assert_allclose(found, (lower + upper) / 2)


def test_a_box_of_one_point_is_that_point() -> None:
    point = np.array([0.0, 0.3, 1.0])
    assert (recover_original(point, point) == point).all()

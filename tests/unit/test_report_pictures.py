"""Pictures of witnesses: which inputs are images, how values become shades, and that a PNG always comes out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from verifier.errors import OutputPathError
from verifier.report.bars import MOST_ROWS, rows_to_show
from verifier.report.canvas import BLUE, PAPER, RED, fold, text_width
from verifier.report.layout import ImageLayout, image_layout
from verifier.report.pictures import save_triple, score_lines
from verifier.report.triple import ValueRange, largest_channel, signed_colours, value_range


@pytest.mark.parametrize(
    ("shape", "layout"),
    [
        ((1, 1, 28, 28), ImageLayout(28, 28, 1)),
        ((1, 28, 28), ImageLayout(28, 28, 1)),
        ((28, 28), ImageLayout(28, 28, 1)),
        ((1, 3, 32, 32), ImageLayout(32, 32, 3)),
        ((3, 32, 32), ImageLayout(32, 32, 3)),
        ((1, 3, 48, 64), ImageLayout(48, 64, 3)),
        ((1, 30, 30, 3), ImageLayout(30, 30, 3, channels_last=True)),
        ((30, 40, 3), ImageLayout(30, 40, 3, channels_last=True)),
        ((1, 28, 28, 1), ImageLayout(28, 28, 1, channels_last=True)),
        ((1, 784), ImageLayout(28, 28, 1)),
        ((784,), ImageLayout(28, 28, 1)),
        ((1, 784, 1), ImageLayout(28, 28, 1)),
        ((1, 784, 1, 1), ImageLayout(28, 28, 1)),
        ((1, 64), ImageLayout(8, 8, 1)),
        ((1, 3072), ImageLayout(32, 32, 3)),
        ((1, 12288), ImageLayout(64, 64, 3)),
        ((1, 1, 1, 5), None),
        ((1, 5), None),
        ((1, 2), None),
        ((1, 16), None),
        ((1, 301), None),
        ((1, 4, 2), None),
        ((1, 5, 20, 20), None),
        ((1,), None),
        ((), None),
    ],
)
def test_layout(shape: tuple[int, ...], layout: ImageLayout | None) -> None:
    assert image_layout(shape) == layout


@pytest.mark.parametrize("channels_last", [False, True])
def test_pixels_and_channels_agree_on_where_values_lie(channels_last: bool) -> None:
    layout = ImageLayout(4, 5, 3, channels_last)
    shape = (4, 5, 3) if channels_last else (3, 4, 5)
    values = np.arange(60.0).reshape(shape)
    pixels = layout.pixels(values.ravel())
    assert pixels.shape == (4, 5, 3)
    assert pixels[2, 3, 1] == (values[2, 3, 1] if channels_last else values[1, 2, 3])
    for channel in range(3):
        assert set(pixels[..., channel].ravel()) == set(values.ravel()[layout.channel_of() == channel])


@pytest.mark.parametrize(
    ("low", "high", "black", "white"),
    [
        (0.0, 1.0, 0, 1),
        (0.2, 0.7, 0, 1),
        (0.0, 1.0005, 0, 1),
        (0.0, 255.0, 0, 255),
        (-2.1, 2.6, -2.1, 2.6),
        (0, 4, 0, 4),
    ],
)
def test_value_range(low: float, high: float, black: float, white: float) -> None:
    found = value_range(np.array([low, high]), np.array([low, (low + high) / 2]))
    assert (found.black, found.white) == (black, white)


def test_both_images_count_for_the_range() -> None:
    assert value_range(np.array([0.0, 1.0]), np.array([-0.5, 2.0])) == ValueRange(-0.5, 2.0)


def test_a_constant_image_has_a_range_all_the_same() -> None:
    assert value_range(np.full(4, -3.0), np.full(4, -3.0)).span > 0
    assert value_range(np.zeros(4), np.zeros(4)).span > 0


def test_shades_are_linear_and_clipped() -> None:
    assert ValueRange(0, 2).shades(np.array([-1.0, 0.0, 1.0, 2.0, 3.0])).tolist() == [0, 0, 128, 255, 255]


def test_colours_tell_the_sign_and_grow_with_the_change() -> None:
    colours = signed_colours(np.array([[-1.0, -0.1, 0.0, 0.1, 1.0]]))[0]
    assert tuple(colours[0]) == BLUE
    assert tuple(colours[2]) == PAPER
    assert tuple(colours[4]) == RED
    assert colours[1, 2] > colours[1, 0]
    assert colours[3, 0] > colours[3, 2]


def test_the_largest_channel_keeps_its_sign() -> None:
    assert largest_channel(np.array([[[0.1, -0.5, 0.3]]])).tolist() == [[-0.5]]


@pytest.mark.parametrize(
    "shape", [(1, 1, 28, 28), (1, 3, 32, 32), (1, 30, 30, 3), (1, 64), (1, 784, 1), (1, 3072), (1, 1, 1, 5), (1, 301)]
)
@pytest.mark.parametrize("scale", [1.0, 255.0])
def test_every_input_gives_a_picture(tmp_path: Path, shape: tuple[int, ...], scale: float) -> None:
    rng = np.random.default_rng(0)
    original = scale * rng.random(int(np.prod(shape)))
    counterexample = np.clip(original + 0.1 * scale * rng.normal(size=original.shape), 0, scale)
    path = tmp_path / "picture.png"
    lines = score_lines(np.array([0.1, 2.5, -1.0]))
    save_triple(
        path, original, counterexample, shape, title=("a title", "and more"), original_lines=lines,
        counterexample_lines=lines, lower=np.zeros_like(original), upper=np.full_like(original, scale),
    )  # fmt: skip
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        assert picture.width > 600
        seen = {colour for _, colour in picture.convert("RGB").getcolors(picture.width * picture.height) or []}
    assert BLUE in seen
    assert RED in seen


def test_the_panels_show_the_values(tmp_path: Path) -> None:
    original = np.zeros((8, 8))
    counterexample = original.copy()
    original[0, 0] = counterexample[0, 0] = 1.0
    counterexample[7, 7] = 0.2
    save_triple(tmp_path / "p.png", original.ravel(), counterexample.ravel(), (1, 64))
    with Image.open(tmp_path / "p.png") as picture:
        pixels = np.asarray(picture.convert("RGB")).astype(int)
    square = 36 * 36
    grey = (pixels == 51).all(axis=2)  # 0.2 of 255
    assert abs(grey.sum() - square) < 50
    red = (pixels == np.array(RED)).all(axis=2)
    assert red.sum() >= square
    assert np.flatnonzero(grey.any(axis=0)).max() < np.flatnonzero(red.any(axis=0)).min()


def test_points_that_do_not_differ(tmp_path: Path) -> None:
    for shape in ((1, 64), (1, 1, 1, 5)):
        point = np.full(int(np.prod(shape)), 0.5)
        save_triple(tmp_path / "same.png", point, point, shape)
        assert (tmp_path / "same.png").stat().st_size > 0


def test_bars_show_the_inputs_that_moved_most() -> None:
    n = 100
    lower, upper = np.zeros(n), np.ones(n)
    upper[5] = 0.0
    counterexample = np.zeros(n)
    counterexample[[3, 50, 99]] = 0.5
    shown = rows_to_show(np.zeros(n), counterexample, lower, upper)
    assert len(shown) == MOST_ROWS
    assert {3, 50, 99} <= set(shown)
    assert 5 not in shown
    assert shown == sorted(shown)


def test_long_lines_are_folded() -> None:
    lines = fold(["word " * 40], 200)
    assert len(lines) > 1
    assert all(text_width(line) <= 200 for line in lines)
    assert " ".join(lines).split() == ["word"] * 40


def test_scores() -> None:
    assert score_lines(np.array([0.5, 3.25, 1.0])) == ("class 1, score 3.25", "then class 2: 1, class 0: 0.5")
    assert score_lines(np.array([0.5, 3.25]), others=0) == ("class 1, score 3.25",)
    assert score_lines(np.array([0.5])) == ("output 0.5",)


@pytest.mark.parametrize("name", ["missing/picture.png", "."])
def test_unwritable_path(tmp_path: Path, name: str) -> None:
    with pytest.raises(OutputPathError, match="cannot write the picture"):
        save_triple(tmp_path / name, np.zeros(64), np.ones(64), (1, 64))

"""Inputs for many questions, from the files data sets come in.

    IDX            ``*-idx3-ubyte`` (MNIST and its kin), plain or .gz; labels from ``*-labels-idx1-ubyte`` beside it
    CIFAR-10       binary batches ``*.bin``, plain or .gz: records of a label and 3 x 32 x 32 bytes
    NumPy          ``.npy``: the first axis counts the inputs; ``.npz``: entries named as in ``INPUTS``, ``LABELS``
    PNG            a folder of .png files, or of folders named by class number that hold them
    CSV            a row per input, with or without a header; the label in a column named as in ``LABELS``, or chosen

Bytes become float32 numbers in [0, 1], byte / 255; everything else is taken as it is.
"""

from __future__ import annotations

import csv
import gzip
import re
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from verifier.errors import InputError, OptionError

Array = NDArray[np.float64]

INPUTS = ("images", "inputs", "x", "data")
LABELS = ("labels", "label", "y", "targets", "target", "class")
CIFAR_RECORD = 1 + 3 * 32 * 32


class DataError(InputError):
    """A data file that cannot be used."""


@dataclass(frozen=True, eq=False)
class Data:
    """inputs: (N, ...), the first axis counts.  labels: (N,) int64 or None.  indices: which inputs of the file."""

    inputs: Array
    labels: NDArray[np.int64] | None
    indices: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.inputs)


def read_data(
    path: str | Path,
    input_shape: Sequence[int],
    index: str = "",
    labels: str | Path | None = None,
    label_column: str | int | None = None,
) -> Data:
    """The inputs at ``index`` ("5", "0:100", "0:100:10", all of them where empty), for a model of ``input_shape``.

    labels: a file of labels (IDX, .npy, or text with one number per line) where the data hold none.
    label_column: of a CSV file, by its name or number from 0.
    Images are put in the model's order, channels first or last.  Raises DataError or OptionError, one sentence.
    """
    path = Path(path)
    if not path.exists():
        raise DataError(
            f"{path} does not exist; name an IDX, CIFAR-10 .bin, .npy, .npz or .csv file, or a folder of PNGs"
        )
    inputs, found = _read(path, tuple(input_shape), label_column)
    if labels is not None:
        found = _label_file(Path(labels))
    if found is not None and len(found) != len(inputs):
        raise DataError(f"{path} has {len(inputs)} inputs but {len(found)} labels; name the labels that belong to it")
    chosen = _chosen(index, len(inputs), path)
    inputs = inputs[list(chosen)]
    size = int(np.prod(input_shape))
    if inputs[0].size != size:
        raise DataError(
            f"an input in {path} has {inputs[0].size} values {inputs.shape[1:]}, but the model takes {size} "
            f"{tuple(input_shape)}"
        )
    arranged = _arranged(inputs, tuple(input_shape))
    return Data(arranged, None if found is None else found[list(chosen)].astype(np.int64), chosen)


def read_idx(path: Path) -> NDArray[np.uint8]:
    """An IDX file of bytes, plain or .gz, as an array of its own shape.  Raises DataError."""
    data = _bytes(path)
    if len(data) < 4 or data[:3] != b"\x00\x00\x08":
        raise DataError(f"{path} is no IDX file of bytes (it should begin with 00 00 08); is it whole?")
    shape = np.frombuffer(data, ">u4", count=data[3], offset=4)
    if len(data) != 4 + 4 * data[3] + int(np.prod(shape, dtype=np.int64)):
        raise DataError(f"{path} is cut off or damaged: its size does not fit its shape {tuple(map(int, shape))}")
    return np.frombuffer(data, np.uint8, offset=4 + 4 * data[3]).reshape(shape)


def _read(
    path: Path, shape: tuple[int, ...], label_column: str | int | None
) -> tuple[NDArray, NDArray[np.int64] | None]:
    """All inputs and, where the data hold them, labels."""
    name = path.name.removesuffix(".gz")
    if path.is_dir():
        return _folder(path, shape)
    if name.endswith((".npy", ".npz")):
        return _numpy(path)
    if name.endswith(".csv"):
        return _csv(path, label_column)
    if name.endswith(".bin"):
        return _cifar(path)
    if "idx" in name and "ubyte" in name:
        return _idx_images(path)
    raise DataError(
        f"{path}: the format is not known by its name; use IDX (*-ubyte), .bin, .npy, .npz, .csv or a folder"
    )


def _unit(values: NDArray[np.uint8]) -> Array:
    """Bytes as float32 numbers in [0, 1], as programs that trained the model have them, in float64."""
    return (values.astype(np.float32) / np.float32(255)).astype(np.float64)


def _bytes(path: Path) -> bytes:
    try:
        data = path.read_bytes()
        return gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
    except (OSError, EOFError) as error:
        raise DataError(f"{path} cannot be read: {error}") from None


def _idx_images(path: Path) -> tuple[NDArray, NDArray[np.int64] | None]:
    images = read_idx(path)
    if images.ndim < 2:
        raise DataError(f"{path} holds labels; name the file of the images, the labels beside it are found")
    beside = path.with_name(path.name.replace("images", "labels").replace(f"idx{images.ndim}", "idx1"))
    labels = None
    for candidate in (beside, beside.with_name(beside.name.removesuffix(".gz")), Path(f"{beside}.gz")):
        if candidate != path and candidate.is_file():
            labels = read_idx(candidate).astype(np.int64)
            break
    return _unit(images), labels


def _cifar(path: Path) -> tuple[NDArray, NDArray[np.int64]]:
    data = _bytes(path)
    if not data or len(data) % CIFAR_RECORD:
        raise DataError(f"{path} is no CIFAR-10 binary batch: its size is not a multiple of {CIFAR_RECORD} bytes")
    records = np.frombuffer(data, np.uint8).reshape(-1, CIFAR_RECORD)
    return _unit(records[:, 1:]).reshape(-1, 3, 32, 32), records[:, 0].astype(np.int64)


def _numpy(path: Path) -> tuple[NDArray, NDArray[np.int64] | None]:
    try:
        loaded = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} cannot be read as NumPy data: {error}") from None
    labels = None
    if isinstance(loaded, np.ndarray):
        inputs = loaded
    else:
        entries = {name.lower(): name for name in loaded.files}
        key = next((entries[name] for name in INPUTS if name in entries), None)
        if key is None:
            raise DataError(
                f"{path} holds {', '.join(loaded.files) or 'nothing'}; name the inputs {' or '.join(INPUTS)}"
            )
        inputs = loaded[key]
        answer = next((entries[name] for name in LABELS if name in entries), None)
        labels = None if answer is None else _whole(loaded[answer], path)
    if inputs.ndim < 2 or not len(inputs):
        raise DataError(
            f"{path}: the inputs have the shape {inputs.shape}; the first axis must count them, at least one"
        )
    if inputs.dtype == np.uint8:
        return _unit(inputs), labels
    if inputs.dtype.kind not in "fiub":
        raise DataError(f"{path}: the inputs are {inputs.dtype}, not numbers")
    return inputs.astype(np.float64), labels


def _csv(path: Path, label_column: str | int | None) -> tuple[NDArray, NDArray[np.int64] | None]:
    rows = [row for row in csv.reader(_bytes(path).decode("utf-8-sig", "replace").splitlines()) if row]
    if not rows:
        raise DataError(f"{path} is empty")
    header = None if all(_is_number(value) for value in rows[0]) else [name.strip() for name in rows.pop(0)]
    column: int | None = None
    if label_column is not None and not str(label_column).lstrip("-").isdecimal():
        if header is None or str(label_column) not in header:
            raise DataError(f"{path} has no column named {label_column!r}; give its number from 0 with --label-column")
        column = header.index(str(label_column))
    elif label_column is not None:
        column = int(label_column)
    elif header is not None:
        column = next((i for i, name in enumerate(header) if name.lower() in LABELS), None)
    try:
        table = np.array([[float(value) for value in row] for row in rows], np.float64)
    except ValueError as error:
        raise DataError(f"{path}: {error}; every value must be a number and all rows equally long") from None
    if not len(table):
        raise DataError(f"{path} holds a header but no inputs")
    if column is None:
        return table, None
    if not -table.shape[1] <= column < table.shape[1]:
        raise DataError(f"{path} has no column {column}; its columns are 0 to {table.shape[1] - 1}")
    return np.delete(table, column, axis=1), _whole(table[:, column], path)


def _folder(path: Path, shape: tuple[int, ...]) -> tuple[NDArray, NDArray[np.int64] | None]:
    from PIL import Image, UnidentifiedImageError

    files = sorted(path.glob("*.png"), key=_natural)
    labels: list[int] | None = None
    if not files:
        classes = sorted((f for f in path.iterdir() if f.is_dir() and f.name.isdecimal()), key=lambda f: int(f.name))
        pairs = [(file, int(f.name)) for f in classes for file in sorted(f.glob("*.png"), key=_natural)]
        files, labels = [file for file, _ in pairs], [label for _, label in pairs]
    if not files:
        raise DataError(f"the folder {path} holds no .png files, nor folders named by class number that do")
    first = shape[-3] if len(shape) >= 3 else 1
    mode = "RGB" if first == 3 or (first != 1 and shape[-1] == 3) else "L"
    images = []
    for file in files:
        try:
            with Image.open(file) as image:
                pixels = np.asarray(image.convert(mode))
        except (OSError, UnidentifiedImageError):
            raise DataError(f"{file} is no picture that can be read") from None
        images.append(pixels.transpose(2, 0, 1) if mode == "RGB" else pixels[None])
        if images[-1].shape != images[0].shape:
            raise DataError(
                f"{file} has {pixels.shape[1]}x{pixels.shape[0]} pixels, unlike the others; scale them alike"
            )
    return _unit(np.stack(images)), None if labels is None else np.array(labels, np.int64)


def _label_file(path: Path) -> NDArray[np.int64]:
    if not path.is_file():
        raise DataError(f"the file of labels {path} does not exist")
    if path.name.endswith(".npy"):
        return _whole(np.load(path, allow_pickle=False), path)
    if "ubyte" in path.name:
        return read_idx(path).astype(np.int64)
    try:
        return _whole(np.array([float(line) for line in _bytes(path).decode().split()]), path)
    except (ValueError, UnicodeDecodeError):
        raise DataError(f"{path} must hold one class number per line") from None


def _whole(values: NDArray, path: Path) -> NDArray[np.int64]:
    numbers = np.asarray(values).ravel()
    if numbers.dtype.kind not in "fiu" or not np.array_equal(numbers, np.round(numbers)):
        raise DataError(f"{path}: the labels must be whole numbers, the positions of the outputs from 0")
    return numbers.astype(np.int64)


def _chosen(index: str, count: int, path: Path) -> tuple[int, ...]:
    """The positions a text such as "7" or "0:100" names."""
    try:
        parts = [int(part) if part.strip() else None for part in index.split(":")] if index else [None, None]
        if len(parts) > 3:
            raise ValueError
    except ValueError:
        raise OptionError(f"the index {index!r} is neither a number nor a range such as 0:100") from None
    if len(parts) == 1 and parts[0] is not None:
        if not -count <= parts[0] < count:
            raise OptionError(f"there is no input {parts[0]}; {path} has {count}, from 0")
        return (parts[0] % count,)
    if len(parts) == 3 and parts[2] == 0:
        raise OptionError(f"the step in the index {index!r} is 0; give another")
    chosen = tuple(range(count)[slice(*parts)])
    if not chosen:
        raise OptionError(f"the index {index!r} chooses none of the {count} inputs of {path}")
    return chosen


def _arranged(inputs: Array, shape: tuple[int, ...]) -> Array:
    """Channels last where the model has them last; shapes otherwise as in the file."""
    channels_first = inputs.ndim == 4 and inputs.shape[1] in (1, 3) and inputs.shape[2:] != shape[-2:]
    if channels_first and len(shape) >= 3 and shape[-3:] == (*inputs.shape[2:], inputs.shape[1]):
        return inputs.transpose(0, 2, 3, 1)
    return inputs


def _natural(path: Path) -> list[tuple[int, int, str]]:
    """Files in the order people count: 2 before 10."""
    parts = re.split(r"(\d+)", path.name)
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts]


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True

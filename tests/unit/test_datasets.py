"""Every format of data, its labels, its scaling, and one clear sentence for what is wrong with a file."""

from __future__ import annotations

import gzip
import struct

import numpy as np
import pytest
from PIL import Image

from verifier.datasets import DataError, read_data, read_idx
from verifier.errors import OptionError

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (5, 4, 3), dtype=np.uint8)
LABELS = np.array([3, 1, 4, 1, 5], np.uint8)
UNIT = (PIXELS.astype(np.float32) / np.float32(255)).astype(np.float64)


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


@pytest.mark.parametrize("packed", [False, True])
def test_idx_with_the_labels_beside_it(tmp_path, packed):
    ending, pack = (".gz", gzip.compress) if packed else ("", lambda data: data)
    (tmp_path / f"t10k-images-idx3-ubyte{ending}").write_bytes(pack(idx(PIXELS)))
    (tmp_path / f"t10k-labels-idx1-ubyte{ending}").write_bytes(pack(idx(LABELS)))
    data = read_data(tmp_path / f"t10k-images-idx3-ubyte{ending}", (1, 1, 4, 3), "1:4")
    assert (data.inputs == UNIT[1:4]).all()
    assert data.labels.tolist() == [1, 4, 1]
    assert data.indices == (1, 2, 3)


def test_cifar_batches(tmp_path):
    pictures = RNG.integers(0, 256, (2, 3072), dtype=np.uint8)
    records = np.hstack([np.array([[7], [2]], np.uint8), pictures])
    (tmp_path / "test_batch.bin").write_bytes(records.tobytes())
    data = read_data(tmp_path / "test_batch.bin", (1, 3, 32, 32))
    assert data.labels.tolist() == [7, 2]
    assert (data.inputs.reshape(2, -1) == (pictures.astype(np.float32) / np.float32(255))).all()
    last = read_data(tmp_path / "test_batch.bin", (1, 32, 32, 3))
    assert (last.inputs[0] == data.inputs[0].transpose(1, 2, 0)).all()


def test_numpy_files(tmp_path):
    values = RNG.normal(size=(4, 6))
    np.save(tmp_path / "x.npy", values)
    assert (read_data(tmp_path / "x.npy", (1, 6)).inputs == values).all()
    assert read_data(tmp_path / "x.npy", (1, 6)).labels is None
    np.savez(tmp_path / "both.npz", Images=values, y=np.arange(4))
    both = read_data(tmp_path / "both.npz", (1, 6), "-1")
    assert both.indices == (3,)
    assert both.labels.tolist() == [3]
    np.save(tmp_path / "bytes.npy", PIXELS)
    assert (read_data(tmp_path / "bytes.npy", (1, 12)).inputs == UNIT).all()


def test_folders_of_pictures(tmp_path):
    for label, number, pixels in ((0, 10, PIXELS[0]), (0, 9, PIXELS[1]), (11, 1, PIXELS[2])):
        (tmp_path / str(label)).mkdir(exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / str(label) / f"image{number}.png")
    data = read_data(tmp_path, (1, 1, 4, 3))
    assert data.labels.tolist() == [0, 0, 11]
    assert (data.inputs[:, 0] == UNIT[[1, 0, 2]]).all()
    plain = read_data(tmp_path / "0", (1, 1, 4, 3))
    assert plain.labels is None
    assert (plain.inputs[:, 0] == UNIT[[1, 0]]).all()
    colour = RNG.integers(0, 256, (4, 3, 3), dtype=np.uint8)
    (tmp_path / "colour").mkdir()
    Image.fromarray(colour).save(tmp_path / "colour" / "a.png")
    unit = (colour.astype(np.float32) / np.float32(255)).astype(np.float64)
    assert (read_data(tmp_path / "colour", (1, 3, 4, 3)).inputs[0] == unit.transpose(2, 0, 1)).all()


def test_csv_files(tmp_path):
    (tmp_path / "named.csv").write_text("a,Label,b\n0.5,2,0.25\n1,0,0\n")
    data = read_data(tmp_path / "named.csv", (1, 2))
    assert data.inputs.tolist() == [[0.5, 0.25], [1.0, 0.0]]
    assert data.labels.tolist() == [2, 0]
    (tmp_path / "plain.csv").write_text("2,0.5,0.25\n0,1,0\n")
    assert read_data(tmp_path / "plain.csv", (1, 2), label_column="0").labels.tolist() == [2, 0]
    assert read_data(tmp_path / "plain.csv", (1, 3)).labels is None
    assert read_data(tmp_path / "named.csv", (1, 2), label_column="Label").labels.tolist() == [2, 0]


def test_labels_from_a_file_of_their_own(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((3, 2)))
    (tmp_path / "labels.txt").write_text("4\n5\n6\n")
    assert read_data(tmp_path / "x.npy", (1, 2), "::2", tmp_path / "labels.txt").labels.tolist() == [4, 6]
    np.save(tmp_path / "l.npy", np.array([4, 5]))
    with pytest.raises(DataError, match="3 inputs but 2 labels"):
        read_data(tmp_path / "x.npy", (1, 2), "", tmp_path / "l.npy")


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.txt", b"1 2", "format is not known"),
        ("a.npy", b"no", "cannot be read as NumPy"),
        ("a.bin", b"12345", "not a multiple of 3073"),
        ("a-idx3-ubyte", b"PNG?", "no IDX file"),
        ("a-idx3-ubyte", idx(PIXELS)[:-1], "cut off"),
        ("a-idx1-ubyte", idx(LABELS), "holds labels"),
        ("a.csv", b"", "is empty"),
        ("a.csv", b"x,y\n1,2\n1,two\n", "must be a number"),
        ("a.csv", b"x,label\n1,2.5\n", "whole numbers"),
        ("a.csv", b"x,label\n", "no inputs"),
        ("a.csv", b"1,2,3\n", "has 3 values"),
        ("a.csv.gz", gzip.compress(b"1,2,3\n", mtime=0)[:-3], "cannot be read"),
    ],
)
def test_bad_files(tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=words):
        read_data(tmp_path / name, (1, 2))


def test_bad_folders_and_missing_files(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        read_data(tmp_path / "no.npy", (1, 2))
    with pytest.raises(DataError, match=r"no \.png files"):
        read_data(tmp_path, (1, 2))
    (tmp_path / "a.png").write_bytes(b"not a picture")
    with pytest.raises(DataError, match="no picture"):
        read_data(tmp_path, (1, 2))
    np.savez(tmp_path / "z.npz", pictures=np.zeros((2, 2)))
    with pytest.raises(DataError, match="holds pictures"):
        read_data(tmp_path / "z.npz", (1, 2))
    (tmp_path / "short-ubyte").write_bytes(idx(LABELS)[:-1])
    with pytest.raises(DataError, match="cut off"):
        read_idx(tmp_path / "short-ubyte")


@pytest.mark.parametrize("index", ["x", "1:2:3:4", "9", "-9", "3:3", "::0"])
def test_bad_indices(tmp_path, index):
    np.save(tmp_path / "x.npy", np.zeros((3, 2)))
    with pytest.raises(OptionError):
        read_data(tmp_path / "x.npy", (1, 2), index)

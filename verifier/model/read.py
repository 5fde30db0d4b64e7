"""Load a model: bytes, checks, lowering, simplification, and the comparison with onnxruntime.

torch, onnx and onnxruntime take seconds to import, so they are imported by ``load`` and only once the file
has been read; importing this module costs milliseconds.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from verifier.errors import ModelError
from verifier.model.files import DEFAULT_LIMIT, expand, read_file

if TYPE_CHECKING:
    from verifier.model.network import Network
    from verifier.model.replay import OnnxReplay


@dataclass(frozen=True, eq=False)
class Model:
    """A network that has been compared with onnxruntime, and the means to run the original.

    sha256: of the file as it is on disk; with external data, of the file followed by the data files in the
    order of their names.
    """

    network: Network
    replay: OnnxReplay
    path: Path
    sha256: str


def load(path: str | Path, limit: int = DEFAULT_LIMIT, hint: str = "") -> Model:
    """Read a plain or gzip-compressed ONNX file.

    limit: how many bytes a compressed file may expand to.  Raises ModelError, one sentence that begins with
    the path, for everything that can be wrong with the file.  hint: why it is no binarised network, for that sentence.
    """
    path = Path(path)
    data = read_file(path)
    digest = hashlib.sha256(data)
    data = expand(data, path, limit)
    from verifier.model.parse import parse

    try:
        network, replay, external_files = parse(data, path)
        for file in external_files:
            digest.update(file.read_bytes())
        return Model(network, replay, path, digest.hexdigest())
    except ModelError as error:
        sentence = f"{error}; nor is it a binarised network that can be read ({hint})" if hint else str(error)
        if str(error).startswith(str(path)):
            raise ModelError(sentence) from None
        raise ModelError(f"{path}: {sentence}") from None

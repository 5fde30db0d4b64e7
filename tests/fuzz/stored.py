"""Cases as self-contained JSON files: the network node by node, the property as VNN-LIB text.

    {"format": 1, "engine": "...", "complaint": "...", "seed": 7,
     "network": {"name": "...", "input_dtype": "float32", "nodes": [{"operator": "Linear", "inputs": [0],
                 "weight": {"shape": [1, 2], "values": [0.5, -1.0]}, ...}, ...]},
     "spec": ["(declare-const X_0 Real)", ...]}

Fields of an operator are named as in its dataclass.  Numbers are written with ``repr`` and read back exactly.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from fuzz.case import Case
from verifier.model import operators
from verifier.model.network import Network, build
from verifier.model.operators import Operator
from verifier.vnnlib import read_text, to_text

FORMAT = 1


@dataclass(frozen=True, eq=False)
class StoredCase:
    """engine: whose answer was wrong; complaint: what was said of it, for the reader."""

    case: Case
    engine: str
    complaint: str


def store(stored: StoredCase, folder: Path) -> Path:
    """Write a file named after the engine and the contents; the same case gives the same file."""
    contents = {
        "format": FORMAT,
        "engine": stored.engine,
        "complaint": stored.complaint,
        "seed": stored.case.seed,
        "network": _network_to_json(stored.case.network),
        "spec": to_text(stored.case.spec).splitlines(),
    }
    digest = hashlib.sha256(json.dumps([contents["network"], contents["spec"]]).encode()).hexdigest()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{stored.engine.replace(' ', '_')}_{digest[:10]}.json"
    path.write_text(json.dumps(contents, indent=1) + "\n", encoding="utf-8")
    return path


def load(path: Path) -> StoredCase:
    """Read what ``store`` wrote."""
    contents = json.loads(path.read_text(encoding="utf-8"))
    if contents["format"] != FORMAT:
        raise ValueError(f"{path}: format {contents['format']}, this reads {FORMAT}")
    network = _network_from_json(contents["network"])
    spec = read_text("\n".join(contents["spec"]), str(path))
    return StoredCase(Case(network, spec, contents["seed"]), contents["engine"], contents["complaint"])


def _network_to_json(network: Network) -> dict[str, Any]:
    nodes = []
    for node in network.nodes:
        fields = {field.name: getattr(node.operator, field.name) for field in dataclasses.fields(node.operator)}
        values = {name: _value_to_json(value) for name, value in fields.items()}
        nodes.append({"operator": type(node.operator).__name__, "inputs": list(node.inputs), **values})
    return {"name": network.name, "input_dtype": network.input_dtype, "nodes": nodes}


def _value_to_json(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return {"shape": list(value.shape), "values": value.reshape(-1).tolist()}
    return list(value) if isinstance(value, tuple) else value


def _network_from_json(contents: dict[str, Any]) -> Network:
    nodes: list[tuple[Operator, tuple[int, ...]]] = []
    for node in contents["nodes"]:
        fields = {n: _value_from_json(n, v) for n, v in node.items() if n not in ("operator", "inputs")}
        nodes.append((getattr(operators, node["operator"])(**fields), tuple(node["inputs"])))
    return build(nodes, contents["name"], contents["input_dtype"])


def _value_from_json(name: str, value: Any) -> Any:
    if isinstance(value, dict):
        dtype = torch.int64 if name == "index" else torch.float64
        return torch.tensor(value["values"], dtype=dtype).reshape(value["shape"])
    return tuple(value) if isinstance(value, list) else value

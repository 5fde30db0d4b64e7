"""From a case to the query that engines take: the network written as a model and run by onnxruntime."""

from __future__ import annotations

from fuzz.case import Case
from verifier.model.replay import OnnxReplay
from verifier.model.write import to_onnx
from verifier.query import Query


def query_of(case: Case) -> Query:
    return Query.of(case.network, case.spec, OnnxReplay(to_onnx(case.network).SerializeToString()))

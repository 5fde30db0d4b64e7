"""Binarised networks: recognised in the ONNX graph, lowered to integers, decided exactly.

Start at ``verifier.binarised.pipeline``, the data flow of one query.
"""

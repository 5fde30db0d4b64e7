"""Proofs of ``unsat`` for programs of gates: their file format and their checkers, which trust no engine."""

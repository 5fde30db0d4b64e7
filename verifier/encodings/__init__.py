"""Encodings of a query for outside solvers: ``verifier.encodings.milp`` (and later ``.sat``)."""

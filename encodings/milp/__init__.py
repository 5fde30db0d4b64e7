"""Mixed-integer encodings of a query: big-M ReLUs, the margin objective, MIP starts, the PuLP twin."""

"""The fuzzer: tiny networks and properties, judged by exhaustive enumeration; ``make fuzz SECONDS=60``."""

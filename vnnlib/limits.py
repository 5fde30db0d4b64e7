"""What reading a property may cost before it is refused.

A small file can ask for a great deal: gzip expands a thousandfold, and distributing ``or`` over ``and`` is
exponential.  Each limit ends in a SpecError that names it, never in an exhausted machine.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ReadLimits:
    """expanded_bytes: length of the text, after gunzip.  Reading takes about 13 bytes of memory for each, and up
    to 65 where the text is nothing but thousands of tiny disjuncts.
    disjuncts: disjuncts of the normal form, and of any part of the formula on the way to it.
    cells: float64 numbers in all boxes and constraint matrices together; 2**27 are 1 GiB.
    """

    expanded_bytes: int = 2**28
    disjuncts: int = 100_000
    cells: int = 2**27

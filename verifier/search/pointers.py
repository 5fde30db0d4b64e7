"""A record's arrays as plain pointers, for compiled functions that are called from inner loops.

numba counts references: a function that is given a named tuple of thirty arrays adds one to thirty counts and takes
one off again, at every call, and does so for nearly every array that a loop takes out of the tuple.  Of the loops of
``hull_lanes`` this was more than half of the time.  Pointers are not counted.

    def compiled(layout):
        layout = pointers(layout)
        return total(layout, 0)         # reads layout.columns[e], and may pass layout on

They know no shape: arrays are C-contiguous, and their elements are counted through all axes.  They keep nothing alive:
numba drops an array after the last line that names it, so pointers are taken of a function's arguments only, which are
the caller's as long as the function runs.
"""

from __future__ import annotations

from typing import Any

from numba import types
from numba.core import cgutils
from numba.extending import intrinsic


@intrinsic
def pointers(typing: Any, record: Any) -> Any:
    """A named tuple with pointers in place of its arrays; booleans become bytes."""

    def plain(member: Any) -> Any:
        if not isinstance(member, types.Array):
            return member
        return types.CPointer(types.uint8 if member.dtype == types.boolean else member.dtype)

    kind = types.BaseTuple.from_types([plain(member) for member in record.types], record.instance_class)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        parts = cgutils.unpack_tuple(builder, arguments[0])
        for k, member in enumerate(record.types):
            if isinstance(member, types.Array):
                parts[k] = context.make_array(member)(context, builder, parts[k]).data
        return context.make_tuple(builder, kind, parts)

    return kind(record), generate

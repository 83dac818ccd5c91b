"""Sparklines as text: eight block glyphs, so that a cell of a table can carry one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

_BLOCKS: Final = "\u2581\u2582\u2583\u2584\u2585\u2586\u2587\u2588"
FLAT: Final = _BLOCKS[0]
"""The glyph of zero."""


def spark(values: Sequence[float], width: int, top: float) -> str:
    """Draw values from left (oldest) to right (newest) on a scale that the caller gives.

    One `top` for all rows of a table lets them be compared, and keeps idle rows flat: scaled by itself, a row that went
    from zero to one message would look like a busy one.

    Args:
        values: As many as there are; more than `width` are joined, each glyph the largest of its share, so that a short
            peak stays visible; fewer are padded on the left.
        width: Glyphs returned.
        top: The value of a full block; larger values are full too. Anything above zero is at least one step high.

    Returns:
        Exactly `width` glyphs, zero and what is not a number as ``▁``.
    """
    if width <= 0:
        return ""
    count = len(values)
    if count > width:
        values = [max(values[at * count // width : (at + 1) * count // width]) for at in range(width)]
    steps = len(_BLOCKS) - 1
    glyphs = []
    for value in values:
        if not value > 0:  # NaN too
            glyphs.append(FLAT)
        elif value >= top or not top > 0:
            glyphs.append(_BLOCKS[steps])
        else:
            glyphs.append(_BLOCKS[max(1, round(value / top * steps))])
    return "".join(glyphs).rjust(width, FLAT)

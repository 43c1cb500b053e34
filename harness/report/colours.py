"""One colour per framework in every chart, stated in its folder or chosen by its name.

The colours of the built-in frameworks are distinct for colour-blind readers too. Okabe and Ito's
are for the most frequent frameworks, Tol's muted and light schemes for the others:
https://jfly.uni-koeln.de/color/ and https://sronpersonalpages.nl/~pault/. Every row of a chart also
carries its name, so that no colour is ever the only sign.
"""

from __future__ import annotations

import colorsys
import hashlib
import math
from collections.abc import Iterable

from levelfield.harness.plan.arms import frameworks

GREY = "#6E6E6E"
GRID = "#E6E6E6"
BAND = "#DDDDDD"  # within the margin
MANY_SERIES = 8  # of curves; of more, most are grey
STAGE_TINTS = (0.8, 0.64, 0.48, 0.32, 0.16, 0.0)
APART = 0.2  # distance in the RGB cube below which two colours look like one
CHOICES = 64


def colour(framework: str) -> str:
    """``#RRGGBB`` of a framework, the same in every report of one installation.

    A framework without a colour gets one by its name, apart from all others in use.
    """
    known = {name: framework.colour for name, framework in frameworks().items() if framework.colour}
    for name in (*frameworks(), framework):
        if name not in known:
            known[name] = chosen(name, known.values())
    return known[framework]


def chosen(framework: str, used: Iterable[str]) -> str:
    """The first of a name's colours that is apart from the used ones, else the farthest one."""
    taken = [_parts(colour) for colour in used]

    def gap(parts: tuple[float, ...]) -> float:
        return min((math.dist(parts, other) for other in taken), default=math.inf)

    choices = [_by_name(framework, number) for number in range(CHOICES)]
    farthest = max(choices, key=gap)
    return _hexadecimal(next((parts for parts in choices if gap(parts) >= APART), farthest))


def _by_name(framework: str, number: int) -> tuple[float, ...]:
    digest = hashlib.sha256(f"{framework}{number or ''}".encode()).digest()
    lightness = 0.3 + 0.3 * digest[2] / 255
    hue = int.from_bytes(digest[:2], "big") / 65536
    return colorsys.hls_to_rgb(hue, lightness, 0.45)


def tint(base: str, whiteness: float) -> str:
    """A colour mixed with white: 0 is the colour, 1 is white."""
    return _hexadecimal(tuple(part + (1 - part) * whiteness for part in _parts(base)))


def _parts(text: str) -> tuple[float, ...]:
    """``#RRGGBB`` as red, green and blue from 0 to 1."""
    return tuple(int(text[at : at + 2], 16) / 255 for at in (1, 3, 5))


def _hexadecimal(parts: tuple[float, ...]) -> str:
    return "#" + "".join(f"{round(part * 255):02X}" for part in parts)

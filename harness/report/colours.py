"""One colour per framework in every chart, distinct for colour-blind readers too.

Okabe and Ito's colours are for the most frequent frameworks, Tol's muted and light schemes for the
others: https://jfly.uni-koeln.de/color/ and https://sronpersonalpages.nl/~pault/. Every row of a
chart also carries its name, so that no colour is ever the only sign.
"""

from __future__ import annotations

import colorsys
import hashlib

FRAMEWORKS = {
    "torch": "#D55E00",
    "tensorflow": "#E69F00",
    "keras": "#CC79A7",
    "jax": "#0072B2",
    "flax": "#56B4E9",
    "reference": "#222222",
    "onnxruntime": "#009E73",
    "openvino": "#999933",
    "theano": "#882255",
    "caffe": "#CC6677",
    "mxnet": "#117733",
    "cntk": "#332288",
    "chainer": "#44AA99",
    "pytensor": "#AA4499",
    "keras2": "#FFAABB",
    "tinygrad": "#661100",
    "paddle": "#77AADD",
    "tensorrt": "#EEDD88",
}
GREY = "#6E6E6E"
STAGE_TINTS = (0.8, 0.64, 0.48, 0.32, 0.16, 0.0)


def colour(framework: str) -> str:
    """``#RRGGBB`` of a framework; for one not listed, a constant colour by its name alone."""
    if framework in FRAMEWORKS:
        return FRAMEWORKS[framework]
    digest = hashlib.sha256(framework.encode()).digest()
    lightness = 0.3 + 0.3 * digest[2] / 255
    hue = int.from_bytes(digest[:2], "big") / 65536
    return _hexadecimal(colorsys.hls_to_rgb(hue, lightness, 0.45))


def tint(base: str, whiteness: float) -> str:
    """A colour mixed with white: 0 is the colour, 1 is white."""
    parts = (int(base[at : at + 2], 16) / 255 for at in (1, 3, 5))
    return _hexadecimal(tuple(part + (1 - part) * whiteness for part in parts))


def _hexadecimal(parts: tuple[float, ...]) -> str:
    return "#" + "".join(f"{round(part * 255):02X}" for part in parts)

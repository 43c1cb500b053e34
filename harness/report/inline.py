"""Charts as elements of a page: text that a reader can search, in the colours of the page."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from itertools import count
from xml.etree import ElementTree

import matplotlib.style
from matplotlib.figure import Figure

from levelfield.harness.report.colours import BAND, GREY, GRID
from levelfield.harness.report.panels import OF_ARM, style

_SVG, _LINK = "{http://www.w3.org/2000/svg}", "{http://www.w3.org/1999/xlink}href"
# Colours of the furniture follow the page; those of frameworks are the same everywhere.
_COLOURS = {
    "#000000": "currentColor",
    "black": "currentColor",
    GREY.lower(): "var(--soft)",
    BAND.lower(): "var(--band)",
    GRID.lower(): "var(--line)",
}
_COLOUR = re.compile("|".join(_COLOURS))
_FONT = re.compile(r"font: (?:(bold|italic|[0-9]+) )*([0-9.]+)px [^;]*|; font-family: [^;]*")
_UPRIGHT = re.compile(r" ?rotate\(-?0(\.0+)?( [^)]*)?\)")
_NUMBER = re.compile(r"-?\d+\.\d{2,}")
_REFERENCE = re.compile(r"url\(#([^)]+)\)")


class Styles:
    """The styles of the charts of a page, each once: a page of dots is mostly styles."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def name(self, style_text: str) -> str:
        """The class of a style."""
        number = self._numbers.setdefault(style_text, len(self._numbers))
        return f"s{number}"

    @property
    def css(self) -> str:
        """A rule for each class."""
        return "\n".join(f".s{number} {{ {text} }}" for text, number in self._numbers.items())


def inline_svg(figure: Figure, label: str, prefix: str, styles: Styles) -> str:
    """A figure as an ``<svg>`` element for a page.

    ``label`` describes it to readers who cannot see it. ``prefix`` keeps its names apart from those
    of other charts on the page, whose ``styles`` it shares. The parts that belong to one
    arm carry ``data-arm``.
    """
    stream = io.BytesIO()
    with style(), matplotlib.style.context({"svg.fonttype": "none"}):
        figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None})
    root = ElementTree.fromstring(stream.getvalue())
    for name in ("width", "height", "version"):
        root.attrib.pop(name, None)
    root.attrib |= {"class": "chart", "role": "img", "aria-label": label}
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag.endswith(("}metadata", "}style")):
                parent.remove(child)
    _rename(root, prefix)
    for element in root.iter():
        _tidy(element, styles)
    return re.sub(r">\s+<", "><", _text(root))


def _rename(root: ElementTree.Element, prefix: str) -> None:
    """Keep the names that something refers to, under a prefix of this chart."""
    used = {element.attrib[_LINK][1:] for element in root.iter() if _LINK in element.attrib}
    for element in root.iter():
        for value in element.attrib.values():
            used.update(_REFERENCE.findall(value))
    short = {name: f"{prefix}.{number}" for number, name in zip(count(), sorted(used))}
    for element in root.iter():
        name = element.attrib.pop("id", "")
        if name in used:
            element.set("id", short[name])
        elif name.startswith(OF_ARM):
            element.set("data-arm", name.removeprefix(OF_ARM))
        if _LINK in element.attrib:
            element.set("href", f"#{short[element.attrib.pop(_LINK)[1:]]}")
        for key, value in element.attrib.items():
            if "url(#" in value:
                element.set(key, _REFERENCE.sub(lambda m: f"url(#{short[m[1]]})", value))


def _tidy(element: ElementTree.Element, styles: Styles) -> None:
    element.tag = element.tag.removeprefix(_SVG)
    for key in ("d", "x", "y", "width", "height", "points", "transform"):
        if key in element.attrib:
            value = _NUMBER.sub(_ROUNDED[key == "transform"], element.attrib[key])
            element.set(key, _UPRIGHT.sub("", " ".join(value.split())))
    if not element.get("transform", "upright"):
        del element.attrib["transform"]
    if "style" in element.attrib:
        value = _FONT.sub(_font, element.attrib.pop("style"))
        element.set("class", styles.name(_COLOUR.sub(lambda m: _COLOURS[m[0]], value)))


def _rounded(digits: int) -> Callable[[re.Match[str]], str]:
    return lambda match: f"{float(match[0]):.{digits}f}"


_ROUNDED = {False: _rounded(1), True: _rounded(2)}  # a turned text needs finer places


def _font(match: re.Match[str]) -> str:
    """Size and weight of a font; the page chooses its family."""
    if match[2] is None:
        return ""
    weight = f"; font-weight: {match[1]}" if match[1] not in (None, "italic") else ""
    slant = "; font-style: italic" if match[1] == "italic" else ""
    return f"font-size: {match[2]}px{weight}{slant}"


def _text(root: ElementTree.Element) -> str:
    return ElementTree.tostring(root, encoding="unicode", short_empty_elements=True)

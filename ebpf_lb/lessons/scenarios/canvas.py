"""Shapes and text as SVG elements. Nothing here depends on how a viewer measures text, or on parts
of SVG that simple viewers lack: addresses are monospaced, and what must stand out has a ground."""

from typing import Literal
from xml.etree import ElementTree

SANS = "'DejaVu Sans', Verdana, 'Helvetica Neue', Arial, sans-serif"
MONO = "'DejaVu Sans Mono', Menlo, Consolas, monospace"
INK, GREY, FAINT, PAPER = "#212529", "#868e96", "#dee2e6", "#ffffff"
_CHARACTER = 0.602  # a monospaced character's width, of its size
_LETTER = 0.6  # about that of other letters in running text
_SHOWN_WIDTH = 1600  # of the whole, where nobody says how large it is to be

Layer = Literal["ground", "behind", "front"]
Anchor = Literal["start", "middle", "end"]


def mono_width(text: object, size: float) -> float:
    return len(str(text)) * size * _CHARACTER


def text_width(text: str, size: float) -> float:
    """Rather too much than too little."""
    return len(text) * size * _LETTER


class Canvas:
    """Three layers, from the ground to the front."""

    def __init__(self) -> None:
        self._layers = {name: ElementTree.Element("g") for name in ("ground", "behind", "front")}

    def document(self, title: str, width: float, height: float) -> str:
        """The whole, on white."""
        size = {"width": f"{width:.0f}", "height": f"{height:.0f}"}
        root = ElementTree.Element(
            "svg",
            {
                "xmlns": "http://www.w3.org/2000/svg",
                "viewBox": f"0 0 {size['width']} {size['height']}",
                "font-family": SANS,
                "width": f"{_SHOWN_WIDTH}",
                "height": f"{_SHOWN_WIDTH * height / width:.0f}",
            },
        )
        ElementTree.SubElement(root, "title").text = title
        ElementTree.SubElement(root, "rect", {**size, "fill": PAPER})
        root.extend(self._layers.values())
        ElementTree.indent(root)
        return ElementTree.tostring(root, encoding="unicode") + "\n"

    def _add(self, layer: Layer, tag: str, attributes: dict[str, object]) -> ElementTree.Element:
        written = {
            name.replace("_", "-"): f"{value:.1f}" if isinstance(value, float) else str(value)
            for name, value in attributes.items()
        }
        return ElementTree.SubElement(self._layers[layer], tag, written)

    def rectangle(
        self, x: float, y: float, width: float, height: float, *, layer: Layer = "front",
        **attributes: object,
    ) -> None:  # fmt: skip
        place = {"x": x, "y": y, "width": width, "height": height}
        self._add(layer, "rect", {**place, **attributes})

    def line(
        self, x1: float, y1: float, x2: float, y2: float, *, layer: Layer = "front",
        **attributes: object,
    ) -> None:  # fmt: skip
        self._add(layer, "line", {"x1": x1, "y1": y1, "x2": x2, "y2": y2, **attributes})

    def arrow(self, x1: float, x2: float, y: float, colour: str, width: float = 2.0) -> None:
        """A horizontal one; its head ends at x2."""
        way = 1 if x2 > x1 else -1
        self.line(x1, y, x2 - way * 3.5 * width, y, stroke=colour, stroke_width=width)
        head = f"M {x2:.1f} {y:.1f} l {-way * 5 * width:.1f} {-2.5 * width:.1f} v {5 * width:.1f} z"
        self._add("front", "path", {"d": head, "fill": colour})

    def cross(self, x: float, y: float, colour: str, size: float = 8.0) -> None:
        for turn in (-size, size):
            self.line(
                x - size, y - turn, x + size, y + turn, stroke=colour, stroke_width=size / 2,
                stroke_linecap="round",
            )  # fmt: skip

    def circle(self, x: float, y: float, radius: float, colour: str, text: str) -> None:
        place: dict[str, object] = {"cx": x, "cy": y, "r": radius, "fill": colour}
        self._add("front", "circle", {**place, "stroke": PAPER, "stroke_width": 2})
        size = 1.2 * radius
        self.text(x, y + 0.36 * size, text, size=size, fill=PAPER, anchor="middle", bold=True)

    def text(
        self,
        x: float,
        y: float,
        text: str,
        *,
        size: float = 12.0,
        fill: str = INK,
        anchor: Anchor = "start",
        mono: bool = False,
        bold: bool = False,
        **attributes: object,
    ) -> None:
        """y is the line that letters stand on."""
        given: dict[str, object] = {"x": x, "y": y, "font_size": size, "fill": fill}
        if anchor != "start":
            given["text_anchor"] = anchor
        if mono:
            given["font_family"] = MONO
        if bold:
            given["font_weight"] = "bold"
        self._add("front", "text", {**given, **attributes}).text = text

    def legible(
        self, x: float, y: float, text: str, *, size: float = 10.0, fill: str = GREY,
        anchor: Anchor = "middle", bold: bool = False,
    ) -> None:  # fmt: skip
        """Text on lines and colours: with a white edge around its letters."""
        edge = {"stroke": PAPER, "stroke_width": 0.35 * size, "stroke_linejoin": "round"}
        for attributes in (edge, {}):
            colour = PAPER if attributes else fill
            self.text(
                x, y, text, size=size, fill=colour, anchor=anchor, bold=bold, mono=not bold,
                **attributes,
            )  # fmt: skip

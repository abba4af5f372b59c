"""Bars with their spread, as SVG: no library, and the same bytes for the same figures."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

_WIDTH, _LABELS, _BAR, _GAP = 760, 250, 14, 6
_COLOURS = {"straight": "#9aa0a6", "ebpf-lb": "#1a73e8", "ebpf-lb past the stack": "#0b8043"}
_ELSE = "#e37400"


@dataclass(frozen=True)
class Bar:
    label: str
    values: Sequence[float]

    @property
    def colour(self) -> str:
        return _COLOURS.get(self.label.split(",")[0].removesuffix(" beside agents"), _ELSE)


def bars(title: str, groups: Iterable[tuple[str, Sequence[Bar]]], mark: float = 1.0) -> str:
    """A bar is a median, the line across its end reaches from the least to the most. `mark`: a
    value with a line of its own."""
    groups = list(groups)
    largest = max((max(bar.values) for _, each in groups for bar in each), default=1.0)
    largest = max(largest, mark) * 1.08
    scale = (_WIDTH - _LABELS - 60) / largest
    shapes, y = [], 40
    for name, each in groups:
        shapes.append(f'<text x="0" y="{y + 11}" font-weight="bold">{escape(name)}</text>')
        y += _BAR + _GAP
        for bar in each:
            middle = statistics.median(bar.values)
            low, high = (_LABELS + scale * end for end in (min(bar.values), max(bar.values)))
            at = y + _BAR / 2
            shapes += [
                f'<text x="{_LABELS - 8}" y="{y + 11}" text-anchor="end">'
                f"{escape(bar.label)}</text>",
                f'<rect x="{_LABELS}" y="{y}" width="{scale * middle:.1f}" height="{_BAR}"'
                f' fill="{bar.colour}"/>',
                f'<path d="M{low:.1f} {at}H{high:.1f}" stroke="#202124" stroke-width="1.5"/>',
                f'<text x="{high + 6:.1f}" y="{y + 11}">{middle:.2f}</text>',
            ]
            y += _BAR + _GAP
        y += _GAP
    line = _LABELS + scale * mark
    shapes.append(f'<path d="M{line:.1f} 30V{y}" stroke="#d93025" stroke-dasharray="4 3"/>')
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {y + 10}"'
        ' font-family="sans-serif" font-size="12">\n'
        f'<rect width="100%" height="100%" fill="#fff"/>\n'
        f'<text x="0" y="18" font-size="15">{escape(title)}</text>\n'
        + "\n".join(shapes)
        + "\n</svg>\n"
    )

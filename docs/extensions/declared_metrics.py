"""Metrics by name, as the sources declare them: calls of prometheus_client's classes, read and not
run, since half of them need a kernel with our maps in it.
"""

import ast
import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from sphinx.errors import ExtensionError

_KINDS = {
    "Counter": "counter",
    "CounterMetricFamily": "counter",
    "Gauge": "gauge",
    "GaugeMetricFamily": "gauge",
    "Histogram": "histogram",
    "HistogramMetricFamily": "histogram",
    "InfoMetricFamily": "info",
    "Info": "info",
}


@dataclass(frozen=True, slots=True, order=True)
class Metric:
    name: str
    kind: str
    labels: tuple[str, ...]
    help: str


class Unreadable(ExtensionError):
    """A name, sentence or label that is not written down where the metric is declared."""


def read(files: Iterable[Path]) -> list[Metric]:
    """All metrics of these files, by name."""
    return sorted({metric for file in files for metric in _of_file(file)})


def _of_file(file: Path) -> Iterator[Metric]:
    text = file.read_text()
    if "prometheus_client" not in text:
        return
    tree = ast.parse(text)
    from_prometheus = {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("prometheus_client")
        for alias in node.names
    }
    names = _Names(tree)
    for node in ast.walk(tree):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name)):
            continue
        kind = _KINDS.get(node.func.id)
        if kind is None or node.func.id not in from_prometheus or not node.args:
            continue
        arguments = [*node.args[:2]]
        labels = node.args[2] if len(node.args) > 2 else None
        for keyword in node.keywords:
            if keyword.arg in ("labels", "labelnames"):
                labels = keyword.value
        if len(arguments) < 2:
            continue
        where = f"{file.name}:{node.lineno}"
        for used in names.values_for((*arguments, *([labels] if labels else []))):
            name = _text(arguments[0], used, where)
            if kind == "counter" and not name.endswith("_total"):
                name += "_total"
            said = _text(arguments[1], used, where)
            yield Metric(name, kind, _words(labels, used, where), said)


class _Names:
    """What names in a file stand for, where that is written there: constants, and the values that
    loops and comprehensions go through."""

    def __init__(self, tree: ast.Module) -> None:
        self._known: dict[str, list[ast.expr]] = {}
        for node in ast.walk(tree):
            if isinstance(node, ast.Assign):
                for target in node.targets:
                    self._assign(target, node.value)
            elif isinstance(node, ast.For | ast.comprehension) and isinstance(node.iter, ast.Tuple):
                for element in node.iter.elts:
                    self._assign(node.target, element)

    def _assign(self, target: ast.expr, value: ast.expr) -> None:
        if isinstance(target, ast.Name):
            self._known.setdefault(target.id, []).append(value)
        elif isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
            for one, its in zip(target.elts, value.elts, strict=False):
                self._assign(one, its)

    def values_for(self, nodes: Iterable[ast.expr]) -> Iterator[dict[str, ast.expr]]:
        """All choices of values for the names in these expressions."""
        names = sorted(
            {one.id for node in nodes for one in ast.walk(node) if isinstance(one, ast.Name)}
        )
        readable = {name: [v for v in self._known.get(name, []) if _plain(v)] for name in names}
        names = [name for name in names if readable[name]]
        for values in itertools.product(*(readable[name] for name in names)):
            yield dict(zip(names, values, strict=True))


def _plain(node: ast.expr) -> bool:
    """A text, or texts."""
    if isinstance(node, ast.List | ast.Tuple):
        return all(map(_plain, node.elts))
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def _text(node: ast.expr, names: dict[str, ast.expr], where: str) -> str:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _text(node.left, names, where) + _text(node.right, names, where)
    if isinstance(node, ast.Name) and node.id in names:
        return _text(names[node.id], {}, where)
    if isinstance(node, ast.JoinedStr):
        return "".join(
            _text(part.value if isinstance(part, ast.FormattedValue) else part, names, where)
            for part in node.values
        )
    if (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "capitalize"
    ):
        return _text(node.func.value, names, where).capitalize()
    raise Unreadable(f"{where}: {ast.unparse(node)} is not written down there")


def _words(node: ast.expr | None, names: dict[str, ast.expr], where: str) -> tuple[str, ...]:
    if node is None:
        return ()
    if isinstance(node, ast.Name) and node.id in names:
        node = names[node.id]
    if isinstance(node, ast.List | ast.Tuple):
        return tuple(_text(element, names, where) for element in node.elts)
    raise Unreadable(f"{where}: {ast.unparse(node)} is not a list of labels")

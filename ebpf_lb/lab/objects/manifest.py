"""Manifests: YAML or JSON, several documents, Lists, files, folders and standard input."""

import json
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ebpf_lb.apiserver import schema
from ebpf_lb.apiserver.kinds import BY_TYPE, Kind
from ebpf_lb.errors import UserError

Json = dict[str, Any]

_SUFFIXES = (".json", ".yaml", ".yml")


class ManifestError(UserError):
    """A manifest that cannot be used; says file, document and field."""


@dataclass(frozen=True, slots=True)
class Document:
    """Where an object came from. `items` are the objects of a List, else one."""

    source: str
    number: int
    items: tuple[tuple[Kind, Json], ...]

    def problem(self, item: int, text: str) -> ManifestError:
        """An error about one of the items."""
        where = f"items[{item}]." if len(self.items) > 1 else ""
        return ManifestError(f"{self.source}, document {self.number}: {where}{text}")


def read_manifests(files: Iterable[str]) -> Iterator[Document]:
    """The documents of all files, in their order; "-" is standard input, a folder stands for the
    manifests in it. Raises ManifestError at the first bad one, before it yields any."""
    documents: list[Document] = []
    for file in files:
        for source, text in _texts(file):
            documents += _parse(source, text)
    if not documents:
        raise ManifestError(f"no object in {', '.join(files)}: a manifest has at least one")
    return iter(documents)


def _texts(file: str) -> Iterator[tuple[str, str]]:
    if file == "-":
        yield "standard input", sys.stdin.read()
        return
    path = Path(file)
    if path.is_dir():
        paths = sorted(entry for entry in path.iterdir() if entry.suffix in _SUFFIXES)
        if not paths:
            raise ManifestError(f"{file}: no manifest (*.yaml, *.yml, *.json) in this folder")
    else:
        paths = [path]
    for path in paths:
        try:
            yield str(path), path.read_text()
        except OSError as error:
            raise ManifestError(f"{path}: cannot be read: {error.strerror}") from None
        except UnicodeDecodeError:
            raise ManifestError(f"{path}: is not text in UTF-8") from None


class _Loader(yaml.SafeLoader):
    """YAML 1.1 as Kubernetes reads it: JSON's types only, so a date stays text; a field that is
    given twice is an error and not the last one's."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key_node.tag != "tag:yaml.org,2002:merge" and key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"field {key!r} is given twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


def _text(loader: _Loader, node: yaml.ScalarNode) -> Any:
    return loader.construct_scalar(node)


_Loader.add_constructor("tag:yaml.org,2002:timestamp", _text)


def _parse(source: str, text: str) -> list[Document]:
    documents: list[Document] = []
    number = 0
    try:
        for value in _values(source, text):
            number += 1
            if value is not None:  # nothing between two separators
                documents.append(_document(source, number, value))
    except yaml.YAMLError as error:
        raise ManifestError(f"{source}, document {number + 1}: {_yaml_problem(error)}") from None
    return documents


def _values(source: str, text: str) -> Iterator[Any]:
    if Path(source).suffix == ".json":
        try:
            yield json.loads(text)
        except ValueError as error:
            raise ManifestError(f"{source}, document 1: is not JSON: {error}") from None
    else:
        yield from yaml.load_all(text, _Loader)


def _yaml_problem(error: yaml.YAMLError) -> str:
    if isinstance(error, yaml.MarkedYAMLError):
        mark = error.problem_mark or error.context_mark
        line = f" (line {mark.line + 1})" if mark else ""
        return f"is not YAML: {error.problem or error.context}{line}"
    return f"is not YAML: {error}"


def _document(source: str, number: int, value: Any) -> Document:
    where = f"{source}, document {number}"
    if isinstance(value, dict) and str(value.get("kind", "")).endswith("List"):
        items = value.get("items")
        if not isinstance(items, list):
            raise ManifestError(f"{where}: items: must be a list of objects")
        objects = [_object(f"{where}: items[{index}].", item) for index, item in enumerate(items)]
        return Document(source, number, tuple(objects))
    return Document(source, number, (_object(f"{where}: ", value),))


def _object(where: str, value: Any) -> tuple[Kind, Json]:
    """`where` ends where the field's name begins."""
    if not isinstance(value, dict):
        raise ManifestError(f"{where.rstrip('.: ')}: is not an object")
    for field in ("apiVersion", "kind"):
        if not isinstance(value.get(field), str) or not value[field]:
            raise ManifestError(f"{where}{field}: is missing or no text")
    kind = BY_TYPE.get((value["apiVersion"], value["kind"]))
    if kind is None:
        known = [other for other in BY_TYPE.values() if other.name == value["kind"]]
        if known:
            choices = " or ".join(sorted({other.api_version for other in known}))
            given = value["apiVersion"]
            raise ManifestError(
                f"{where}apiVersion: {given!r} has no {value['kind']}: write {choices}"
            )
        names = ", ".join(sorted({other.name for other in BY_TYPE.values()}))
        raise ManifestError(f"{where}kind: the lab has no {value['kind']!r}; it has {names}")
    unknown: list[schema.UnknownField] = []
    try:
        schema.decode(value, kind.schema, unknown)
    except schema.WrongType as problem:
        raise ManifestError(f"{where}{problem.field}: {problem.hint}") from None
    if unknown:
        text = "; ".join(f"{where}{one.field}: unknown field{one.hint}" for one in unknown)
        raise ManifestError(text)
    metadata = value.get("metadata") or {}
    if not metadata.get("name") and not metadata.get("generateName"):
        raise ManifestError(f"{where}metadata.name: is missing")
    return kind, value

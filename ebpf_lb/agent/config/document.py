"""A configuration file as values, and the line of each, so that whoever finds one wrong can say
where it stands.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from ebpf_lb.agent.config.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Document:
    """`values`: by keys, as they are nested in the file. `lines`: by keys with dots between."""

    file: Path | None = None
    values: dict[Any, Any] = field(default_factory=dict)
    lines: dict[str, int] = field(default_factory=dict)

    def where(self, path: str) -> str:
        """A key's place, for people."""
        line = self.lines.get(path)
        return f"{path} in {self.file}" + (f", line {line}" if line else "")


def read(file: Path | None) -> Document:
    """ConfigError: it is not there, not YAML, or not keys and values."""
    if file is None:
        return Document()
    try:
        loader = yaml.SafeLoader(file.read_bytes())
        node = loader.get_single_node()
        content = None if node is None else loader.construct_document(node)
    except OSError as error:
        raise ConfigError(f"Cannot read {file}: {error.strerror}.") from error
    except yaml.YAMLError as error:
        where = getattr(error, "problem_mark", None)
        line = f", line {where.line + 1}" if where else ""
        problem = getattr(error, "problem", None) or "it cannot be read"
        raise ConfigError(f"{file}{line} is not YAML: {problem}.") from error
    if content is None:
        return Document(file)
    if not isinstance(content, dict):
        raise ConfigError(f"{file} is wrong: keys and values are expected.")
    return Document(file, content, dict(_lines(node, "")))


def _lines(node: Any, above: str) -> Iterator[tuple[str, int]]:
    for key, value in node.value:
        path = f"{above}{key.value}"
        yield path, key.start_mark.line + 1
        if isinstance(value, yaml.MappingNode):
            yield from _lines(value, f"{path}.")

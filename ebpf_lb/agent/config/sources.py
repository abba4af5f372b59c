"""Where a value comes from: a flag wins over the environment, that over the file, that over the
default.

Every key has three spellings, made from one name: `node_port_addresses` of `Config` is
`nodePortAddresses` in the file and EBPF_LB_NODE_PORT_ADDRESSES in the environment. What is compiled
into the programs (`Settings`) stands in the file's section `dataPath`. Lists are YAML lists in the
file, and words with commas anywhere else.
"""

import socket
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, get_type_hints

import yaml

from ebpf_lb.agent.config import parsers
from ebpf_lb.agent.config.keys import Config
from ebpf_lb.datapath.clock import LONGEST_TIMEOUT_S
from ebpf_lb.datapath.settings import Settings
from ebpf_lb.errors import UserError

ENVIRONMENT_PREFIX = "EBPF_LB_"
DATA_PATH_SECTION = "dataPath"

# Service ids have 16 bits and 0 is none; the others end where a map's memory would pass reason.
_CAPACITY_LIMITS = {"services": 1 << 16}
_CAPACITY_LIMIT = 1 << 26


class ConfigError(UserError):
    """A value that cannot be: the sentence names the key, where it was read, and what is wrong."""


@dataclass(frozen=True, slots=True)
class _Key:
    section: str
    name: str
    parse: Callable[[Any], Any]

    @property
    def in_file(self) -> str:
        head, *rest = self.name.split("_")
        return head + "".join(word.capitalize() for word in rest)

    @property
    def in_environment(self) -> str:
        return ENVIRONMENT_PREFIX + self.name.upper()


def _keys() -> Iterator[_Key]:
    for name, hint in get_type_hints(Config, include_extras=True).items():
        if name != "settings":
            yield _Key("", name, hint.__metadata__[0])
    for setting in fields(Settings):
        if setting.name.startswith(("xdp", "host_routing")):
            continue  # follows from ours
        if setting.name.endswith("_s"):
            yield _Key(DATA_PATH_SECTION, setting.name, parsers.whole(1, LONGEST_TIMEOUT_S))
        else:
            limit = _CAPACITY_LIMITS.get(setting.name, _CAPACITY_LIMIT)
            yield _Key(DATA_PATH_SECTION, setting.name, parsers.whole(1, limit))


def load(
    flags: Mapping[str, str | None],
    environment: Mapping[str, str],
    file: Path | None,
    *,
    host_name: Callable[[], str] = socket.gethostname,
    mounts: Path = Path("/proc/mounts"),
) -> tuple[Config, list[str]]:
    """The configuration, and warnings about what in the file means nothing here.

    `flags` is by the names of Config's fields, None where the flag was not given. Raises
    ConfigError.
    """
    sections, warnings = _read(file)
    values: dict[str, dict[str, Any]] = {"": {}, DATA_PATH_SECTION: {}}
    for key in _keys():
        in_file = sections[key.section].pop(key.in_file, None)
        flag = flags.get(key.name) if not key.section else None
        if flag is not None:
            value, source = flag, "--" + _flag(key.name)
        elif key.in_environment in environment:
            value, source = environment[key.in_environment], key.in_environment
        elif in_file is not None:
            value, source = in_file, f"{_path(key.section, key.in_file)} in {file}"
        else:
            continue
        try:
            values[key.section][key.name] = key.parse(value)
        except ValueError as error:
            raise ConfigError(f"{source} is wrong: {error}.") from error
    for section, unknown in sections.items():
        warnings += [
            f"{_path(section, key)} in {file} is not a key of the configuration" for key in unknown
        ]
    own = values[""]
    own.setdefault("node_name", host_name().lower())  # as the kubelet names its Node
    own.setdefault("cgroup", cgroup_root(mounts))
    xdp = own.get("xdp", "off")
    settings = Settings(
        **values[DATA_PATH_SECTION],
        host_routing=own.get("host_routing") == "bpf",
        xdp=xdp != "off",
        xdp_generic=xdp == "generic",
    )
    return Config(**own, settings=settings), warnings


def cgroup_root(mounts: Path) -> Path | None:
    """Where cgroup version 2 is mounted: in the usual place if it is there, too."""
    found = []
    for line in mounts.read_text().splitlines():
        _, target, kind, *_ = line.split(" ")
        if kind == "cgroup2":
            # the kernel writes blanks and the like as octal escapes
            found.append(Path(target.encode().decode("unicode_escape")))
    return min(found, key=lambda path: path != Path("/sys/fs/cgroup"), default=None)


def _read(file: Path | None) -> tuple[dict[str, dict[Any, Any]], list[str]]:
    """The file's sections."""
    sections: dict[str, dict[Any, Any]] = {"": {}, DATA_PATH_SECTION: {}}
    if file is None:
        return sections, []
    try:
        content = yaml.safe_load(file.read_bytes())
    except OSError as error:
        raise ConfigError(f"Cannot read {file}: {error.strerror}.") from error
    except yaml.YAMLError as error:
        where = getattr(error, "problem_mark", None)
        line = f", line {where.line + 1}" if where else ""
        problem = getattr(error, "problem", None) or "it cannot be read"
        raise ConfigError(f"{file}{line} is not YAML: {problem}.") from error
    if content is None:
        return sections, []
    if not isinstance(content, dict):
        raise ConfigError(f"{file} is wrong: keys and values are expected.")
    data_path = content.pop(DATA_PATH_SECTION, None)
    if data_path is not None and not isinstance(data_path, dict):
        raise ConfigError(f"{DATA_PATH_SECTION} in {file} is wrong: keys and values are expected.")
    return {"": content, DATA_PATH_SECTION: data_path or {}}, []


def _flag(name: str) -> str:
    return {"cluster_cidrs": "cluster-cidr"}.get(name, name.replace("_", "-"))


def _path(section: str, key: object) -> str:
    return f"{section}.{key}" if section else str(key)

"""Where a value comes from: a flag wins over the environment, that over the file, that over the
default.

Every key has three spellings, made from one name: `node_port_addresses` of `Config` is
`nodePortAddresses` in the file and EBPF_LB_NODE_PORT_ADDRESSES in the environment. What is compiled
into the programs (`Settings`) stands in the file's section `dataPath`. Lists are YAML lists in the
file, and words with commas anywhere else. kube-proxy's spellings are understood besides
(`kube_proxy`): of its flags, and of its own kind of file, in which keys of ours may stand, too.
"""

import socket
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, get_type_hints

from ebpf_lb.agent.config import document, kube_proxy, parsers
from ebpf_lb.agent.config.document import Document
from ebpf_lb.agent.config.errors import ConfigError
from ebpf_lb.agent.config.keys import Config
from ebpf_lb.agent.config.kube_proxy import Said
from ebpf_lb.datapath.clock import LONGEST_TIMEOUT_S
from ebpf_lb.datapath.settings import CHOSEN_ELSEWHERE, Settings

ENVIRONMENT_PREFIX = "EBPF_LB_"
DATA_PATH_SECTION = "dataPath"
DEFAULT = "default"

# Service ids have 16 bits and 0 is none; the others end where a map's memory would pass reason.
_CAPACITY_LIMITS = {"services": 1 << 16}
_CAPACITY_LIMIT = 1 << 26


@dataclass(frozen=True, slots=True)
class Key:
    """A value that can be said. `name`: the field of Config or Settings."""

    section: str
    name: str
    parse: Callable[[Any], Any]

    @property
    def in_file(self) -> str:
        head, *rest = self.name.split("_")
        return _path(self.section, head + "".join(word.capitalize() for word in rest))

    @property
    def in_environment(self) -> str:
        return ENVIRONMENT_PREFIX + self.name.upper()


@dataclass(frozen=True, slots=True)
class Resolved:
    """What is in force. `warnings`: about what was said in vain. `origins`: where each value comes
    from, by the key's spelling in the file."""

    config: Config
    warnings: list[str]
    origins: dict[str, str]


def keys() -> Iterator[Key]:
    for name, hint in get_type_hints(Config, include_extras=True).items():
        if name != "settings":
            yield Key("", name, hint.__metadata__[0])
    for setting in fields(Settings):
        if setting.name in CHOSEN_ELSEWHERE:
            continue
        if setting.name.endswith("_s"):
            yield Key(DATA_PATH_SECTION, setting.name, parsers.whole(1, LONGEST_TIMEOUT_S))
        else:
            limit = _CAPACITY_LIMITS.get(setting.name, _CAPACITY_LIMIT)
            yield Key(DATA_PATH_SECTION, setting.name, parsers.whole(1, limit))


def load(
    flags: Mapping[str, str | None],
    environment: Mapping[str, str],
    file: Path | None,
    kube_proxys_flags: Mapping[str, tuple[str, str]] | None = None,
    *,
    host_name: Callable[[], str] = socket.gethostname,
    mounts: Path = Path("/proc/mounts"),
) -> Resolved:
    """The configuration. ConfigError: a value that cannot be, or two that contradict each other.

    `flags` is by the names of Config's fields, None where the flag was not given;
    `kube_proxys_flags`: what was said by kube-proxy's, and by which, by its key in a
    KubeProxyConfiguration.
    """
    content = document.read(file)
    of_file, by_flags, notes = _kube_proxys(content, kube_proxys_flags or {})
    sections = _sections(content)
    values: dict[str, dict[str, Any]] = {"": {}, DATA_PATH_SECTION: {}}
    origins = {}
    for key in keys():
        name = key.in_file.rpartition(".")[2]
        own = sections[key.section].pop(name, None)
        said = _first(
            _flags(key, flags, by_flags),
            _environment(key, environment),
            [*_in_file(key, own, content), *_about(key, of_file)],
            _about(key, [*by_flags, *of_file], default=True),
        )
        found = [(_parsed(key, one), one.source) for one in said]
        for value, source in found[1:]:
            if value != found[0][0]:
                raise ConfigError(f"{found[0][1]} and {source} contradict each other: name one.")
        for value, source in found[:1]:
            values[key.section][key.name] = value
            origins[key.in_file] = source
    for section, unknown in sections.items():
        notes += [
            f"{content.where(_path(section, key))} is not a key of the configuration"
            for key in unknown
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
    return Resolved(Config(**own, settings=settings), notes, origins)


def cgroup_root(mounts: Path) -> Path | None:
    """Where cgroup version 2 is mounted: in the usual place if it is there, too."""
    found = []
    for line in mounts.read_text().splitlines():
        _, target, kind, *_ = line.split(" ")
        if kind == "cgroup2":
            # the kernel writes blanks and the like as octal escapes
            found.append(Path(target.encode().decode("unicode_escape")))
    return min(found, key=lambda path: path != Path("/sys/fs/cgroup"), default=None)


def _kube_proxys(
    content: Document, flags: Mapping[str, tuple[str, str]]
) -> tuple[list[Said], list[Said], list[str]]:
    """What was said in kube-proxy's words, in the file and by flags, and notes on it."""
    of_file: list[Said] = []
    notes: list[str] = []
    if kube_proxy.is_one(content.values):
        of_file, notes = kube_proxy.translate(kube_proxy.take(content.values, content.where))
    by_flags, more = kube_proxy.translate(flags)
    return of_file, by_flags, notes + more


def _sections(content: Document) -> dict[str, dict[Any, Any]]:
    data_path = content.values.pop(DATA_PATH_SECTION, None)
    if data_path is not None and not isinstance(data_path, dict):
        where = content.where(DATA_PATH_SECTION)
        raise ConfigError(f"{where} is wrong: keys and values are expected.")
    return {"": content.values, DATA_PATH_SECTION: data_path or {}}


def _first(*levels: list[Said]) -> list[Said]:
    """What was said where it counts most."""
    return next((level for level in levels if level), [])


def _flags(key: Key, flags: Mapping[str, str | None], by_flags: Iterable[Said]) -> list[Said]:
    value = None if key.section else flags.get(key.name)
    own = [] if value is None else [Said(key.name, value, f"--{_flag(key.name)}")]
    return own + _about(key, by_flags)


def _environment(key: Key, environment: Mapping[str, str]) -> list[Said]:
    name = key.in_environment
    return [Said(key.name, environment[name], name)] if name in environment else []


def _in_file(key: Key, value: Any, content: Document) -> list[Said]:
    return [] if value is None else [Said(key.name, value, content.where(key.in_file))]


def _about(key: Key, said: Iterable[Said], *, default: bool = False) -> list[Said]:
    if key.section:
        return []
    return [one for one in said if one.key == key.name and one.default == default]


def _parsed(key: Key, said: Said) -> Any:
    try:
        return key.parse(said.value)
    except ValueError as error:
        raise ConfigError(f"{said.source} is wrong: {error}.") from error


def _flag(name: str) -> str:
    return {"cluster_cidrs": "cluster-cidr"}.get(name, name.replace("_", "-"))


def _path(section: str, key: object) -> str:
    return f"{section}.{key}" if section else str(key)

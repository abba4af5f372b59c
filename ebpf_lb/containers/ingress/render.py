"""nginx's configuration, by the template beside this file."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import jinja2

from ebpf_lb.containers.ingress.rules import Location, Sites

HEALTH_PORT = 10254  # ingress-nginx's

_TEMPLATE = Path(__file__).with_name("nginx.conf.j2")


def render(sites: Sites, folder: Path, certificates: Mapping[str, Path]) -> str:
    """folder: where nginx keeps what it writes. certificates: a PEM file for each host's name."""
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True)
    environment.filters["matches"] = _matches
    environment.filters["covers_everything"] = _covers_everything
    template = environment.from_string(_TEMPLATE.read_text())
    return template.render(
        sites=sites, folder=folder, certificates=certificates, health_port=HEALTH_PORT
    )


def _matches(locations: Iterable[Location]) -> list[tuple[str, Location]]:
    """What stands after `location`, and for which: nginx takes `=` first, then the longest prefix.

    Prefixes end where a path's element ends: /tea is asked for by /tea and /tea/green, not by
    /teapot. An exact path goes before the same one as a prefix."""
    found: dict[str, Location] = {}
    ordered = sorted(locations, key=lambda one: not one.exact)
    for one in ordered:
        bare = one.path.rstrip("/")
        if one.exact:
            found.setdefault(f"= {_quoted(one.path)}", one)
        elif not bare:
            found.setdefault(_quoted("/"), one)
        else:
            found.setdefault(f"= {_quoted(bare)}", one)
            found.setdefault(_quoted(bare + "/"), one)
    return list(found.items())


def _covers_everything(locations: Iterable[Location]) -> bool:
    return any(not one.exact and not one.path.rstrip("/") for one in locations)


def _quoted(path: str) -> str:
    """As one word of nginx's language, whatever is in it."""
    return '"' + path.replace("\\", "\\\\").replace('"', '\\"') + '"'

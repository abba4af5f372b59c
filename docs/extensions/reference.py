"""Reference pages, made from where things are declared: nothing on them is written twice."""

import dataclasses
import inspect
import re
from collections.abc import Iterable
from typing import Any

import click
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError
from sphinx.util.docutils import SphinxDirective

from docs.extensions import declared_metrics
from docs.extensions.rules import ROOT
from ebpf_lb.agent.config import kube_proxy
from ebpf_lb.agent.config.keys import Config
from ebpf_lb.cli.agent import agent
from ebpf_lb.cli.agent_options import KUBE_PROXYS
from ebpf_lb.datapath import layout
from ebpf_lb.datapath.settings import Settings
from ebpf_lb.model.values import Family


class Missing(ExtensionError):
    """Something is declared without the sentence that its page needs."""


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table in Markdown."""
    head = list(head)
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(_cell(cell) for cell in line)} |" for line in lines)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", r"\|")


def in_file(name: str) -> str:
    """A field's key in the configuration file."""
    head, *rest = name.split("_")
    return head + "".join(word.capitalize() for word in rest)


def sentences(of: type) -> dict[str, str]:
    """What a docstring says of fields: `name, other: sentence`, indented where it goes on."""
    found: dict[str, str] = {}
    paragraph = re.compile(r"^(\w+(?:, \w+)*):(.*(?:\n +.+)*)", re.MULTILINE)
    for match in paragraph.finditer(inspect.getdoc(of) or ""):
        for name in match[1].split(", "):
            found[name] = match[2]
    return found


def options(of: click.Command) -> dict[str, str]:
    """A command's options by what their values are called."""
    return {
        parameter.name: parameter.opts[0]
        for parameter in of.params
        if isinstance(parameter, click.Option) and parameter.name
    }


def configuration() -> str:
    """The agent's keys."""
    said, flags = sentences(Config), options(agent)
    rows = []
    for field in dataclasses.fields(Config):
        if field.name == "settings":
            continue
        if field.name not in said:
            raise Missing(f"{Config.__name__} says nothing of {field.name}")
        names = [in_file(field.name), *([flags[field.name]] if field.name in flags else ())]
        rows.append(
            ("<br>".join(map("`{}`".format, names)), _default(field), _sentence(said[field.name]))
        )
    return table(("Key, option", "Default", "Meaning"), rows)


def kube_proxys() -> str:
    """Its keys and flags, and which of ours has their meaning."""
    flags = {path: f"-{flag}" if flag == "v" else f"--{flag}" for flag, path in KUBE_PROXYS.items()}
    rows = []
    for path in sorted({*kube_proxy.MEANING, *kube_proxy.LOOKED_AT}):
        ours = f"`{in_file(kube_proxy.MEANING[path][0])}`" if path in kube_proxy.MEANING else ""
        names = [path, *([flags[path]] if path in flags else ())]
        rows.append(("<br>".join(map("`{}`".format, names)), ours or kube_proxy.LOOKED_AT[path]))
    without = ", ".join(f"`{path}`" for path in kube_proxy.NO_MEANING)
    return f"{table(('Key, flag', 'Here'), rows)}\n\nWithout a meaning here: {without}."


def data_path() -> str:
    """The keys of the section dataPath."""
    said = sentences(Settings)
    rows = []
    for field in dataclasses.fields(Settings):
        if field.type is bool:
            continue  # follows from a key of the agent's
        if field.name not in said:
            raise Missing(f"{Settings.__name__} says nothing of {field.name}")
        rows.append((f"`{in_file(field.name)}`", _default(field), _sentence(said[field.name])))
    return table(("Key", "Default", "Meaning"), rows)


def _default(field: "dataclasses.Field[Any]") -> str:
    value = field.default
    if value is None or value in ("", ()):
        return ""
    if isinstance(value, tuple) and len(value) == 2 and isinstance(value[1], int):
        value = f"{value[0]}:{value[1]}"
    elif isinstance(value, tuple):
        value = ",".join(map(str, value))
    elif isinstance(value, bool):
        value = str(value).lower()
    return f"`{value}`"


def _sentence(text: str) -> str:
    text = " ".join(text.split())
    first = text.split()[0]
    return text if not first.islower() else text[0].upper() + text[1:]


def reasons() -> str:
    """Why packets end as they do."""
    rows = []
    for number, reason in sorted(layout.load(Family.IPV4).reasons.items()):
        if not reason.sentence:
            raise Missing(f"{reason.name} has no sentence")
        remedy = _sentence(reason.remedy) if reason.remedy else ""
        name, verdict = f"`{reason.name}`", reason.verdict.value
        rows.append((name, str(number), verdict, _sentence(reason.sentence), remedy))
    return table(("Name", "Number", "Verdict", "A packet gets it when", "What to do"), rows)


def maps() -> str:
    """What the kernel holds."""
    rows = []
    for spec in layout.load(Family.IPV4).maps.values():
        if not spec.description:
            raise Missing(f"map {spec.name} has no sentence")
        rows.append((f"`{spec.name}`", f"`{spec.type}`", spec.description))
    return table(("Map", "Type", "Who writes, who reads, what happens when it is full"), rows)


def metrics() -> str:
    """What Prometheus reads."""
    rows = []
    folder = ROOT / "ebpf_lb" / "agent"
    for metric in declared_metrics.read(sorted(folder.rglob("*.py"))):
        labels = f"<br>by {', '.join(metric.labels)}" if metric.labels else ""
        rows.append((f"`{metric.name}`{labels}", metric.kind, metric.help))
    return table(("Metric, and its labels", "Type", "Meaning"), rows)


_PAGES = {
    "configuration": configuration,
    "data-path": data_path,
    "kube-proxy": kube_proxys,
    "reasons": reasons,
    "maps": maps,
    "metrics": metrics,
}


class Generated(SphinxDirective):
    """```{generated} reasons: the page's part that is made from the sources."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        self.env.note_reread()
        return self.parse_text_to_nodes(_PAGES[self.arguments[0]]())


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("generated", Generated)
    return {"parallel_read_safe": True, "version": "1"}

"""`make demo`: a lab, a Service, and real connections that show who answers.

Ends with status 1 if not every pod answered in every column.
"""

import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

import yaml

from ebpf_lb.errors import UserError
from ebpf_lb.lab.cluster import Lab
from ebpf_lb.lab.options import DEFAULT_NAME, Options
from ebpf_lb.lab.state import name_option

NAMESPACE, NAME = "default", "hostnames"
MADE_BY = "demo"
TRIES = 40  # that one of three pods is missed by chance: three times in ten million
_READY_WITHIN_S = 60
_ANSWER_S = 10  # SYNs that were lost are sent again after 1, 3 and 7 s


class DemoError(UserError):
    """The Service does not do what it should."""


@dataclass(frozen=True, slots=True)
class Column:
    """Where the connections come from and which address they go to."""

    host: str
    title: str
    family: str
    url: str
    answers: Counter[str] = field(default_factory=Counter)


def manifest() -> Path:
    """The example: inside the installed package, else beside it."""
    package = Path(__file__).resolve().parents[1]
    installed = package / "manifests" / "examples" / "hostnames.yaml"
    return installed if installed.exists() else package.parent.joinpath(*installed.parts[-3:])


def run(lab: Lab, out: TextIO) -> None:
    """Shows the demo; the lab stays. Raises DemoError, and what the lab raises."""
    say = _Progress(out)
    _bring_up(lab, say)
    say(f"applying {manifest().name}")
    lab.apply([manifest()])
    pods = _wait_for_pods(lab)
    columns = list(_columns(lab, pods))
    say(f"asking the Service {TRIES} times each way")
    _wait_until_followed(lab, columns, set(pods))
    for column in columns:
        column.answers.update(ask(lab, column.host, column.url, TRIES))
    say("done")
    print("\n" + render(columns, pods), file=out)
    lost = sum(TRIES - column.answers.total() for column in columns)
    if lost or any(not column.answers[pod] for column in columns for pod in pods):
        raise DemoError(
            f"not every pod answered each way, and {lost} connections got no answer: "
            f"look into {lab.log('agent-node1').parent}"
        )
    print("\n" + hints(columns[0].url), file=out)


class _Progress:
    """One line a step, with the time since the beginning."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._began = time.monotonic()

    def __call__(self, text: str) -> None:
        print(f"{time.monotonic() - self._began:5.1f} s  {text}", file=self._out, flush=True)


def _bring_up(lab: Lab, say: _Progress) -> None:
    """Uses a lab that is whole and as the demo wants it; else one of its own is built anew."""
    if lab.exists:
        problem = _problem(lab)
        if not problem:
            say(f"using lab {lab.name!r}, which runs already")
            return
        if lab.made_by != MADE_BY:
            raise DemoError(
                f"lab {lab.name!r} {problem}, and the demo takes no lab down that it did not make: "
                f"end it with `ebpf-lb lab down{name_option(lab.name)}`, or give the demo another "
                "name: `EBPF_LB_LAB=demo make demo`"
            )
        say(f"lab {lab.name!r} {problem}: building it anew")
        lab.down()
    lab.up(Options(), progress=say, made_by=MADE_BY)


def _problem(lab: Lab) -> str:
    """Why the demo cannot use a lab; "" if it can."""
    if not lab.running:
        return "is built only half"
    if lab.options != Options():
        return "has other options than the demo needs"
    if not all(lab.agent_healthy(node.name) for node in lab.nodes()):
        return "is not healthy"
    return ""


def take_down(lab: Lab, out: TextIO) -> None:
    """Takes the demo's lab down, and no other."""
    if not lab.exists:
        print(f"There is no lab {lab.name!r}.", file=out)
    elif lab.made_by != MADE_BY:
        down = f"ebpf-lb lab down{name_option(lab.name)}"
        print(
            f"Lab {lab.name!r} was not made by the demo, so it stays; `{down}` ends it.", file=out
        )
    else:
        lab.down()


def _wait_for_pods(lab: Lab) -> dict[str, str]:
    """Name -> node of the example's pods."""
    documents = yaml.safe_load_all(manifest().read_text())
    [wanted] = [doc["spec"]["replicas"] for doc in documents if doc["kind"] == "Deployment"]
    deadline = time.monotonic() + _READY_WITHIN_S
    while True:
        pods = {
            pod.name: pod.node
            for pod in lab.pods()
            if pod.namespace == NAMESPACE and pod.name.startswith(f"{NAME}-")
        }
        if len(pods) == wanted:
            return pods
        if time.monotonic() > deadline:
            raise DemoError(f"{len(pods)} pods run instead of {wanted}: see `ebpf-lb lab status`")
        time.sleep(0.05)


def _columns(lab: Lab, pods: dict[str, str]) -> Iterator[Column]:
    """From a pod and from a node, over each family. The pod is one of the Service's own, so that
    some of its connections come back to itself."""
    service = lab.client.get(f"/api/v1/namespaces/{NAMESPACE}/services/{NAME}")
    pod, node = next(iter(pods)), lab.nodes()[0].name
    for host, title in ((f"{NAMESPACE}/{pod}", "from a pod"), (node, f"from {node}")):
        for address in service["spec"]["clusterIPs"]:
            family = "IPv6" if ":" in address else "IPv4"
            url = f"http://[{address}]/" if family == "IPv6" else f"http://{address}/"
            yield Column(host, title, family, url)


def ask(lab: Lab, host: str, url: str, tries: int) -> list[str]:
    """Who answered: a new connection for each try, up to the first that got no answer."""
    options = ["-sg", "--fail-early", f"-m{_ANSWER_S}", "-H", "Connection: close", "-w", "\\n"]
    done = lab.exec(
        host,
        ["curl", *options, *[url] * tries],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    return [line for line in done.stdout.splitlines() if line]


def _wait_until_followed(lab: Lab, columns: list[Column], pods: set[str]) -> None:
    """Until only pods that run answer: after a change of the example the agents take a moment."""
    deadline = time.monotonic() + _READY_WITHIN_S
    for column in columns:
        while set(ask(lab, column.host, column.url, TRIES)) != pods:
            if time.monotonic() > deadline:
                return  # the table will show what is wrong
            time.sleep(0.05)


def render(columns: list[Column], pods: dict[str, str]) -> str:
    """The Service's addresses, and who answered how often."""
    urls = list(dict.fromkeys(column.url for column in columns))
    titles = list(dict.fromkeys(column.title for column in columns))
    per_title = len(columns) // len(titles)
    width = max(8, *(len(title) // per_title + 2 for title in titles))
    left = max(map(len, [*pods, "answers"])) + 2
    near = max(map(len, pods.values())) + 4
    lines = [
        f"Service {NAMESPACE}/{NAME} at {' and '.join(urls)}, {len(pods)} pods",
        f"The pod that asks is {columns[0].host.rpartition('/')[2]}, one of them.",
        "",
        " " * (left + near) + "".join(title.rjust(width * per_title) for title in titles),
        "who answered".ljust(left + near) + "".join(c.family.rjust(width) for c in columns),
    ]
    for pod, node in pods.items():
        counted = "".join(str(column.answers[pod]).rjust(width) for column in columns)
        lines.append(pod.ljust(left) + node.ljust(near) + counted)
    sums = (str(sum(column.answers.values())).rjust(width) for column in columns)
    lines.append("answers".ljust(left + near) + "".join(sums))
    return "\n".join(lines)


def hints(url: str) -> str:
    """Three things to try next."""
    return "\n".join(
        (
            "The lab stays up until `make demo-down`. Meanwhile, try:",
            f"  .venv/bin/ebpf-lb lab exec node1 -- curl -s {url}",
            f"  .venv/bin/ebpf-lb lab scale {NAME} 5",
            "  .venv/bin/ebpf-lb lab exec node1 -- ebpf-lb maps dump",
        )
    )


def main() -> None:
    """Entry point of `python -m ebpf_lb.lessons.demo [down]`."""
    lab = Lab(os.environ.get("EBPF_LB_LAB", DEFAULT_NAME))
    try:
        (take_down if sys.argv[1:] == ["down"] else run)(lab, sys.stdout)
    except UserError as error:
        sys.exit(f"demo: {error}")


if __name__ == "__main__":
    main()

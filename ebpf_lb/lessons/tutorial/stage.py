"""Where a step takes place: a namespace of its own in a lab, and what it may do there."""

import shlex
import subprocess
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, TextIO, TypeVar

from ebpf_lb.apiserver.kinds import DEPLOYMENT, NAMESPACE, POD, SERVICE
from ebpf_lb.errors import UserError
from ebpf_lb.lab import state
from ebpf_lb.lab.cluster import Lab
from ebpf_lb.lab.objects.apply import apply_files
from ebpf_lb.lab.objects.client import ApiError
from ebpf_lb.lab.objects.manifest import ManifestError
from ebpf_lb.lab.objects.pod_life import PodLife
from ebpf_lb.lab.objects.text import render
from ebpf_lb.lessons.scenarios import svg, words
from ebpf_lb.lessons.scenarios.catalog import Scenario
from ebpf_lb.lessons.scenarios.way import Story
from ebpf_lb.lessons.tutorial.beside import labs_beside
from ebpf_lb.lessons.tutorial.page import Manifest, Picture, Told

Json = dict[str, Any]
T = TypeVar("T")
_WIDTH = 96


class UnexpectedError(UserError):
    """What was seen is not what the step is about."""


class Stage:
    """Says what it does, does it, and shows what came of it. within_s: how long it waits for what
    is to come; answer_s: and for one answer."""

    within_s = 60.0
    answer_s = 5

    def __init__(self, lab: Lab, namespace: str, out: TextIO) -> None:
        self.lab = lab
        self.namespace = namespace
        self.told: list[Told] = []
        self.out = out

    # --- telling

    def say(self, text: str = "") -> None:
        print(text, file=self.out, flush=True)
        self.told.append(text)

    def tell(self, text: str) -> None:
        """A paragraph."""
        self.say("\n" + textwrap.fill(text, _WIDTH))

    def show(self, text: str) -> None:
        """Something that was seen."""
        for line in text.rstrip("\n").splitlines():
            self.say(f"    {line}")

    def picture(self, name: str, scenario: Scenario, story: Story) -> None:
        """A drawing for the step's page."""
        text = f"{scenario.title}: {words.outcome(story)}"
        self.told.append(Picture(name, text, svg.render(scenario, story)))

    def check(self, holds: object, complaint: str) -> None:
        """Raises UnexpectedError with this sentence, unless it holds."""
        if not holds:
            raise UnexpectedError(complaint)

    def wait(self, what: str, look: Callable[[], T]) -> T:
        """What `look` sees when it is true at last. UnexpectedError: `what` did not come."""
        deadline = time.monotonic() + self.within_s
        while not (seen := look()):
            if time.monotonic() > deadline:
                raise UnexpectedError(f"{what}: not within {self.within_s:.0f} s; see `lab status`")
            time.sleep(0.1)
        return seen

    # --- doing

    def apply(self, text: str, namespace: str = "", *, shown: bool = True) -> None:
        """shown: the step's page has the manifest."""
        namespace = namespace or self.namespace
        with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
            file.write(text)
            file.flush()
            results = apply_files(self.lab.client, [file.name], namespace)
        if shown:
            self.told.append(Manifest(text))
        self.say(f"  $ ebpf-lb lab apply -n {namespace} -f -")
        self.show("\n".join(map(str, results)))

    def refused(self, text: str) -> str:
        """What the API server says of manifests that it does not take; "" if it takes them."""
        try:
            self.apply(text)
        except ManifestError as error:
            self.told.append(Manifest(text))
            self.say(f"  $ ebpf-lb lab apply -n {self.namespace} -f -")
            self.show(str(error).partition(": ")[2])
            return str(error)
        return ""

    def patch(self, path: str, change: Json) -> None:
        """Changes an object quietly: the step has said how its reader would."""
        self.lab.client.patch(path, change)

    def scale(self, deployment: str, replicas: int) -> None:
        self.say(f"  $ ebpf-lb lab scale -n {self.namespace} {deployment} {replicas}")
        path = DEPLOYMENT.path(self.namespace, deployment)
        self.patch(f"{path}/scale", {"spec": {"replicas": replicas}})

    def set_ready(self, pod: str, ready: bool) -> None:
        if not ready:
            self.say(f"  $ ebpf-lb lab pod -n {self.namespace} {pod} --unready")
        PodLife(self.lab.client, self.namespace, pod).set_ready(ready)

    def get(self, kind: str, name: str = "") -> Json:
        """An object, or the list of a kind, as JSON: `services`, `endpointslices`."""
        group = "apis/discovery.k8s.io/v1" if kind == "endpointslices" else "api/v1"
        path = f"/{group}/namespaces/{self.namespace}/{kind}"
        return self.lab.client.get(f"{path}/{name}" if name else path)

    def table(self, kind: str, path: str, namespace: str = "") -> None:
        """Shows a list as `lab get` does."""
        self.say(f"  $ ebpf-lb lab get {kind} -n {namespace or self.namespace}")
        self.show(render(self.lab.client.table(path), namespaces=False, wide=False))

    def run(self, host: str, *words: str, quiet: bool = False) -> str:
        """Runs a command on a host or in a pod (by its bare name), and shows what it printed."""
        if not quiet:
            self.typed(host, *words)
        done = self.lab.exec(
            self._place(host), list(words), stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        if not quiet:
            self.show(done.stdout)
        return str(done.stdout)

    def typed(self, host: str, *words: str) -> None:
        """Says the command."""
        self.say(f"  $ ebpf-lb lab exec {host} -- {' '.join(map(_quoted, words))}")

    def ask(self, host: str, url: str, times: int = 1) -> list[str]:
        """Who answered on new connections, up to the first that got no answer."""
        options = [
            "-sg",
            "--fail-early",
            f"-m{self.answer_s}",
            "-H",
            "Connection: close",
            "-w",
            "\\n",
        ]
        words = ["curl", *options, *[url] * times]
        return self.run(host, *words, quiet=True).split()

    def count(self, host: str, url: str, times: int) -> dict[str, int]:
        """Asks often, and shows how often each answered."""
        answers = self.ask(host, url, times)
        counts = {name: answers.count(name) for name in sorted(set(answers))}
        self.say(f"  {times} connections from {host} to {url}:")
        self.show("\n".join(f"{name}  {number}" for name, number in counts.items()) or "no answer")
        return counts

    def _place(self, host: str) -> str:
        return host if host in self.lab.hosts() else f"{self.namespace}/{host}"

    @contextmanager
    def labs_beside(self, networks: Sequence[str]) -> Iterator[dict[str, Callable[[], Lab]]]:
        """A lab for each of these networks, by its name, meanwhile: to be called when it is needed,
        since it is still coming up."""
        self.say(f"Making small labs: {', '.join(networks)}")
        with labs_beside(self.lab, networks) as coming:
            yield {network: one.lab for network, one in coming.items()}

    # --- what is often waited for

    def pods(self) -> list[Json]:
        found: list[Json] = self.get("pods")["items"]
        return [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]

    def ready_pods(self, number: int) -> list[str]:
        """Waits until so many pods are ready, and no others are there."""

        def look() -> list[str]:
            pods = self.pods()
            ready = [pod["metadata"]["name"] for pod in pods if is_ready(pod)]
            return sorted(ready) if len(pods) == len(ready) == number else []

        return self.wait(f"{number} ready pods in {self.namespace}", look)

    def served_by(self, host: str, url: str, pods: Sequence[str], tries: int = 30) -> None:
        """Waits until just these pods answer."""
        self.wait(
            f"answers of {', '.join(pods)} at {url}",
            lambda: set(self.ask(host, url, tries)) == set(pods),
        )

    def service_address(self, name: str) -> str:
        return str(self.get("services", name)["spec"]["clusterIP"])

    def url(self, address: str, port: int = 80, path: str = "/") -> str:
        host = f"[{address}]" if ":" in address else address
        return f"http://{host}:{port}{path}" if port != 80 else f"http://{host}{path}"


def _quoted(word: str) -> str:
    """For a shell; words in which there are quotes are readable, too, where that can be."""
    if "'" in word and not set(word) & set('"$`\\\\!'):
        return f'"{word}"'
    return shlex.quote(word)


def is_ready(pod: Json) -> bool:
    conditions = pod.get("status", {}).get("conditions") or ()
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def _alone(lab: Lab, name: str) -> AbstractContextManager[None]:
    """Two runs of one step in a lab would remove each other's objects."""
    busy = UserError(
        f"step {name} is being gone through in lab {lab.name!r} already: wait until that has ended"
    )
    return state.alone(lab.names.dir / f"tutorial-{name}.lock", busy)


@contextmanager
def set_up(lab: Lab, name: str, out: TextIO, kind: type[Stage] = Stage) -> Iterator[Stage]:
    """A stage with a new namespace, which is removed at the end. UserError: another run of this
    step has it just now."""
    _ = lab.options  # says where there is no lab
    with _alone(lab, name):
        yield from _set_up(lab, name, out, kind)


def _set_up(lab: Lab, name: str, out: TextIO, kind: type[Stage]) -> Iterator[Stage]:
    namespace = f"tutorial-{name}"
    collection, path = NAMESPACE.collection_path(None), NAMESPACE.path(None, namespace)
    stage = kind(lab, namespace, out)

    def made() -> bool:
        try:
            lab.client.create(collection, {"metadata": {"name": namespace}})
        except ApiError as error:
            if error.reason != "AlreadyExists":
                raise
            lab.client.delete(path)  # an earlier run was interrupted
            return False
        return True

    stage.wait(f"namespace {namespace} can be made", made)
    try:
        yield stage
    finally:
        lab.client.delete(path)


def pods_path(namespace: str) -> str:
    return POD.collection_path(namespace)


def services_path(namespace: str) -> str:
    return SERVICE.collection_path(namespace)

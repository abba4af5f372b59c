"""Of step 2: who is chosen, by the Service's annotation."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import yaml

from ebpf_lb.lessons.demo import manifest
from ebpf_lb.lessons.tutorial.stage import Stage

ALGORITHM, WEIGHTS = "ebpf-lb.io/algorithm", "ebpf-lb.io/weights"
_TIMES = 60
_HELD = 12  # connections: enough for several to each pod
_WEIGHT = 4
_SAME = 20  # connections of one client


def act(stage: Stage, url: str, pods: list[str]) -> None:
    stage.tell(
        "IPVS brought kube-proxy a hash table instead of a list, and schedulers to choose from. "
        f"Here a Service chooses by the annotation {ALGORITHM}. By chance (random), which is the "
        "default:"
    )
    _chosen(stage, "random")
    stage.served_by(pods[0], url, pods)
    counts = stage.count(pods[0], url, _TIMES)
    stage.check(set(counts) == set(pods), "not every pod answered with random")

    _in_turn(stage, url, pods)
    _weights(stage, url, pods)
    _least_connections(stage, url, pods)
    _by_source(stage, url, pods)

    stage.say("\nBy a hash of the whole connection, in a table that a change of pods hardly moves:")
    _chosen(stage, "maglev")
    stage.served_by(pods[0], url, pods)
    counts = stage.count(pods[0], url, _TIMES)
    stage.check(set(counts) == set(pods), "not every pod answered with maglev")


def _chosen(stage: Stage, algorithm: str, **more: str) -> None:
    """Applies the Service again, with these annotations."""
    documents = yaml.safe_load_all(manifest().read_text())
    [service] = [document for document in documents if document["kind"] == "Service"]
    annotations = {ALGORITHM: algorithm, **more}
    service["metadata"]["annotations"] = annotations
    for name, value in annotations.items():
        stage.say(f"  {name}: {value}")
    stage.apply(yaml.safe_dump(service))


def _numbers(stage: Stage, url: str, pod: str, pods: list[str]) -> list[int]:
    answers = stage.ask(pod, url, _TIMES)
    return [answers.count(name) for name in pods]


def _in_turn(stage: Stage, url: str, pods: list[str]) -> None:
    stage.say("\nIn turn (rr): as many to each.")
    _chosen(stage, "rr")

    def even() -> bool:
        numbers = _numbers(stage, url, pods[0], pods)
        return sum(numbers) == _TIMES and max(numbers) - min(numbers) <= 1

    stage.wait("each pod takes its turn", even)
    counts = stage.count(pods[0], url, _TIMES)
    stage.check(max(counts.values()) - min(counts.values()) <= 1, "the turns are uneven")


def _weights(stage: Stage, url: str, pods: list[str]) -> None:
    [address] = [pod["status"]["podIP"] for pod in stage.pods() if _name(pod) == pods[0]]
    stage.say(f"\nWith a weight of {_WEIGHT} for {pods[0]}, that many for one of the others':")
    _chosen(stage, "rr", **{WEIGHTS: f"{address}={_WEIGHT}"})
    share = _TIMES // (_WEIGHT + len(pods) - 1)
    wanted = [share * _WEIGHT] + [share] * (len(pods) - 1)

    def as_wanted() -> bool:
        numbers = _numbers(stage, url, pods[0], pods)
        return all(abs(a - b) <= 1 for a, b in zip(numbers, wanted, strict=True))

    stage.wait("each pod takes as many turns as it has weight", as_wanted)
    stage.count(pods[0], url, _TIMES)


def _name(pod: dict[str, dict[str, str]]) -> str:
    return pod["metadata"]["name"]


def _least_connections(stage: Stage, url: str, pods: list[str]) -> None:
    stage.tell(
        "To the pod with the fewest connections (lc). One pod has some that stay; new ones, which "
        "end at once, go to the others:"
    )
    _chosen(stage, "lc")

    def spared() -> bool:
        with _held(stage, pods[0]) as busy:
            return busy in pods and busy not in stage.ask(pods[0], url, _TIMES)

    stage.wait("the busy pod is spared", spared)
    with _held(stage, pods[0]) as busy:
        stage.show(f"{busy} has {_HELD // len(pods)} connections")
        counts = stage.count(pods[0], url, _TIMES)
    stage.check(set(counts) == set(pods) - {busy}, "the busy pod was not spared")


@contextmanager
def _held(stage: Stage, pod: str) -> Iterator[str]:
    """Connections from a pod stay meanwhile: to whom."""
    address = stage.service_address("hostnames")
    words = [sys.executable, "-S", "-m", "ebpf_lb.lessons.tutorial.hold", address, "80", str(_HELD)]
    with stage.lab.popen(
        f"{stage.namespace}/{pod}", words, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        try:
            assert process.stdout is not None
            yield str(process.stdout.readline()).strip()
        finally:
            process.kill()


def _always_one(stage: Stage, client: str, url: str) -> bool:
    answers = stage.ask(client, url, _SAME)
    return len(answers) == _SAME and len(set(answers)) == 1


def _by_source(stage: Stage, url: str, pods: list[str]) -> None:
    stage.say("\nBy the client's address (sh): each client always comes to the same pod:")
    _chosen(stage, "sh")
    for client in [*pods, *(node.name for node in stage.lab.nodes())]:
        stage.wait(f"one pod for {client}", partial(_always_one, stage, client, url))
        answers = stage.ask(client, url, _SAME)
        stage.show(f"{len(answers)} connections from {client}: {', '.join(sorted(set(answers)))}")
        always = len(answers) == _SAME and len(set(answers)) == 1
        stage.check(always, f"{client} came to several pods")

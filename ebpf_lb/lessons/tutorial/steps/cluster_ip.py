"""Step 2: an address that nobody has."""

from ebpf_lb.lab.names import PODS
from ebpf_lb.lessons.demo import manifest
from ebpf_lb.lessons.tutorial import iptables
from ebpf_lb.lessons.tutorial.stage import Stage
from ebpf_lb.lessons.tutorial.steps import algorithms

TITLE = "ClusterIP: an address that no machine has"
TEXT = (
    "A connection to the ClusterIP goes to one of the pods, each time to another by chance, but "
    "nothing has the address itself, so nobody answers a ping to it. kube-proxy writes a list of "
    "rules for this, which a packet goes through one after the other; here it is one look-up in a "
    "hash table and three entries by their numbers, however many Services there are."
)
_TIMES = 60


def act(stage: Stage) -> None:
    stage.apply(manifest().read_text())
    pods = stage.ready_pods(3)
    address = stage.service_address("hostnames")
    url = stage.url(address)
    stage.served_by(pods[0], url, pods)

    stage.say("\nThree times the same request:")
    for _ in range(3):
        stage.run(pods[0], "curl", "-sg", "-w", "\\n", url)
    counts = stage.count(pods[0], url, _TIMES)
    stage.check(set(counts) == set(pods), "not every pod answered")

    _ping(stage, address, pods[0])
    _compare(stage, address, pods)
    algorithms.act(stage, url, pods)


def _ping(stage: Stage, address: str, pod: str) -> None:
    stage.tell(
        "The address is a destination of connections to its port only. Nobody is there to answer "
        "a ping; the node says so at once, in the address' name, instead of leaving the client "
        "waiting:"
    )
    ping = stage.run(pod, "ping", "-c", "1", "-W", "1", address)
    stage.check(" 0 received" in ping, "somebody answers the ping")


def _compare(stage: Stage, address: str, pods: list[str]) -> None:
    addresses = [stage.get("pods", name)["status"]["podIP"] for name in pods]
    endpoints = [f"{each}:9376" for each in addresses]
    if ":" not in address:  # the names of ip6tables' rules are the same, their form is not
        stage.tell(
            "What kube-proxy would write for this Service in its mode iptables (computed, not in "
            "this lab). One rule after the other is tried: the first pod is taken with probability "
            "1/3, else the second with 1/2, else the third. Who comes from elsewhere, and a pod "
            "that comes to itself, is marked (KUBE-MARK-MASQ) to be masqueraded on the way out:"
        )
        name = f"{stage.namespace}/hostnames"
        rules = iptables.rules(name, address, 80, "TCP", endpoints, str(PODS.ipv4))
        stage.show("\n".join(rules))
    stage.tell(
        "What the kernel's maps hold for it on node1 instead. The address is found by its hash, "
        "and leads to the number of the Service's entry; that says where its slots are, in each "
        "of which stands the number of a backend:"
    )
    words = ["ebpf-lb", "maps", "dump", "frontends", "services", "backends", "--wide"]
    words += [f"--service={stage.namespace}/hostnames", "--family"]
    dump = stage.run("node1", *words, "ipv6" if ":" in address else "ipv4")
    for each in [address, *addresses]:
        stage.check(f"{each}:" in dump or f"{each}]:" in dump, f"{each} is not in node1's maps")

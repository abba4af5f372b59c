"""The demo's table, which is what people see first."""

from collections import Counter

from ebpf_lb.lab.demo import Column, hints, manifest, render

PODS = {"hostnames-6c5d8-aaaaa": "node1", "hostnames-6c5d8-bbbbb": "node3"}
ADDRESSES = (("IPv4", "http://10.96.0.9/"), ("IPv6", "http://[fd00:10:96::9]/"))


def test_table() -> None:
    columns = [
        Column(host, title, family, url, Counter({pod: 20 + i for i, pod in enumerate(PODS)}))
        for host, title in (("default/hostnames-6c5d8-aaaaa", "from a pod"), ("n", "from node1"))
        for family, url in ADDRESSES
    ]
    assert render(columns, PODS).splitlines() == [
        "Service default/hostnames at http://10.96.0.9/ and http://[fd00:10:96::9]/, 2 pods",
        "The pod that asks is hostnames-6c5d8-aaaaa, one of them.",
        "",
        "                                      from a pod      from node1",
        "who answered                        IPv4    IPv6    IPv4    IPv6",
        "hostnames-6c5d8-aaaaa  node1          20      20      20      20",
        "hostnames-6c5d8-bbbbb  node3          21      21      21      21",
        "answers                               41      41      41      41",
    ]


def test_three_hints() -> None:
    assert len(hints("http://10.96.0.9/").splitlines()) == 1 + 3


def test_the_example_is_found() -> None:
    assert manifest().name == "hostnames.yaml"
    assert manifest().exists()

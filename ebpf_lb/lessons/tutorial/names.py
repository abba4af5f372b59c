"""What a pod finds by DNS, as records."""

from ebpf_lb.lessons.tutorial.stage import Stage

_LOOK_UP = ("python3", "-m", "ebpf_lb.containers.dns.lookup")


def pod_addresses(stage: Stage, name: str) -> list[str]:
    return [entry["ip"] for entry in stage.get("pods", name)["status"]["podIPs"]]


def addresses(given: list[str]) -> set[str]:
    return {f"{'AAAA' if ':' in one else 'A'} {one}" for one in given}


def records(stage: Stage, pod: str, expected: dict[str, set[str]]) -> None:
    """Asks until just these records are there, and shows them: TYPE and data, by name."""
    [(name, wanted)] = expected.items()
    kinds = sorted({record.split()[0] for record in wanted} - {"CNAME"})
    words = [*_LOOK_UP, *(word for kind in kinds for word in (kind, name))]

    def look() -> str:
        said = stage.run(pod, *words, quiet=True)
        lines = [line.split(maxsplit=3) for line in said.splitlines()]
        found = {rest for _, _, _, rest in (line for line in lines if len(line) == 4)}
        return said if found == wanted else ""

    said = stage.wait(f"{name} leads to {', '.join(sorted(wanted))}", look)
    stage.typed(pod, *words)
    stage.show("\n".join(dict.fromkeys(said.splitlines())))

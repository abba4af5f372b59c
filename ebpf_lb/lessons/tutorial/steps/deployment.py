"""Step 1: who stands behind a Service."""

from ebpf_lb.lessons.demo import manifest
from ebpf_lb.lessons.tutorial.stage import Stage, pods_path, services_path

TITLE = "Pods behind a Service: readiness and scaling"
TEXT = (
    "A Deployment keeps three pods running, and a Service gives them one address; which pods take "
    "traffic at the moment stands in the Service's EndpointSlices. A pod that is not ready is "
    "taken out of them, and pods that come and go with scaling are added and removed."
)


def act(stage: Stage) -> None:
    stage.apply(manifest().read_text())
    pods = stage.ready_pods(3)
    stage.table("pods", pods_path(stage.namespace))
    stage.table("services", services_path(stage.namespace))
    _show_endpoints(stage, pods)

    stage.say("\nOne pod says that it is not ready:")
    stage.set_ready(pods[0], False)
    _show_endpoints(stage, pods[1:])
    url = stage.url(stage.service_address("hostnames"))
    stage.served_by("node1", url, pods[1:])
    counts = stage.count("node1", url, 20)
    stage.check(set(counts) == set(pods[1:]), "another answered than the two ready pods")
    stage.set_ready(pods[0], True)

    stage.say("\nFive pods instead of three:")
    stage.scale("hostnames", 5)
    five = stage.ready_pods(5)
    _show_endpoints(stage, five)
    stage.served_by("node1", url, five, tries=60)
    counts = stage.count("node1", url, 60)
    stage.check(set(counts) == set(five), "not all five pods answered")


def _show_endpoints(stage: Stage, expected: list[str]) -> None:
    """Of the first family: each pod with its state, once the expected ones are ready."""

    def look() -> dict[str, tuple[str, bool]]:
        found: dict[str, tuple[str, bool]] = {}
        primary = stage.get("services", "hostnames")["spec"]["ipFamilies"][0]
        for slice_ in stage.get("endpointslices")["items"]:
            for endpoint in slice_["endpoints"] or () if slice_["addressType"] == primary else ():
                pod = endpoint["targetRef"]["name"]
                found[pod] = (endpoint["addresses"][0], endpoint["conditions"]["ready"])
        ready = sorted(pod for pod, (_, is_ready) in found.items() if is_ready)
        return found if ready == sorted(expected) else {}

    found = stage.wait(f"endpoints {', '.join(expected)}", look)
    stage.say("  in the EndpointSlice:")
    for pod, (address, ready) in sorted(found.items()):
        stage.show(f"{address}  {pod}  {'ready' if ready else 'not ready'}")

"""Step 3: Services in the environment."""

from ebpf_lb.lessons.demo import manifest
from ebpf_lb.lessons.tutorial.stage import Stage

TITLE = "Discovery by environment variables"
TEXT = (
    "A pod finds address and ports of the Services of its namespace in its environment, as "
    "Docker's links had it. They are written when the pod starts, so one that was there before the "
    "Service knows nothing of it."
)
_POD = """
apiVersion: v1
kind: Pod
metadata: {{name: {name}}}
spec: {{containers: [{{name: c, image: registry.k8s.io/e2e-test-images/agnhost:2.53}}]}}
"""


def act(stage: Stage) -> None:
    stage.apply(_POD.format(name="before"))
    stage.ready_pods(1)
    stage.apply(manifest().read_text())
    stage.ready_pods(4)
    address = stage.service_address("hostnames")
    stage.apply(_POD.format(name="after"))
    stage.ready_pods(5)
    look = ("sh", "-c", "env | grep ^HOSTNAMES_ | sort")
    stage.say("\nA pod that was there before the Service:")
    before = stage.run("before", *look)
    stage.check(not before, "a pod knows a Service that came later")
    stage.say("    (nothing)\n\nA pod that was started after it:")
    after = dict(line.split("=", 1) for line in stage.run("after", *look).splitlines())
    stage.check(after.get("HOSTNAMES_SERVICE_HOST") == address, "the address is not there")
    stage.check("HOSTNAMES_PORT_80_TCP_ADDR" in after, "Docker's links are not there")
    stage.say("\nAnd that is enough to ask it:")
    ask = "curl -sg http://$HOSTNAMES_SERVICE_HOST:$HOSTNAMES_SERVICE_PORT/"
    if ":" in address:
        ask = ask.replace("$HOSTNAMES_SERVICE_HOST", "[$HOSTNAMES_SERVICE_HOST]")
    pods = [name for name in stage.ready_pods(5) if name.startswith("hostnames-")]
    stage.served_by("after", stage.url(address), pods)
    answer = stage.run("after", "sh", "-c", ask).strip()
    stage.check(answer in pods, "none of the Service's pods answered")

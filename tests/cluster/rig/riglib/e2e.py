"""Runs the upstream end-to-end tests from the client's place, outside the cluster."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from . import conf, pki
from .proc import in_netns, run

DIR = conf.OWN / "e2e"
# Specs that need what is not here: a cloud, ssh to nodes, Windows, SCTP, the Internet, network
# policies, iperf, a DNS of more than the basic plugins, an ingress controller, the nfacct module.
SKIP = (
    r"\[Disruptive\]|\[Flaky\]|\[Provider|Windows|SCTP|Internet connection|"
    r"Feature:Networking-Performance|Feature:PerformanceDNS|Feature:NetworkPolicy|"
    r"Feature:Ingress\]|KubeProxyNFAcct|DNS configMap"
)

PATTERN = re.compile(r"([\\.+*?()|\[\]{}^$])")


def names():
    """The full names of all sig-network specs."""
    listed = run(conf.BIN / "e2e.test", "--list-tests")
    return [line.split(": ", 1)[1] for line in listed.splitlines() if ": [sig-network]" in line]


def chosen(focus, skip):
    return [
        name for name in names() if re.search(focus, name) and not (skip and re.search(skip, name))
    ]


def only(wanted):
    """A focus for exactly these specs."""
    return "(" + "|".join(PATTERN.sub(r"\\\1", name) for name in wanted) + ")$"


def spec_name(spec):
    return " ".join((spec["ContainerHierarchyTexts"] or []) + [spec["LeafNodeText"]])


def run_tests(nodes, focus, skip=SKIP, procs=4, timeout="2h", junit=None):
    """Runs the specs; {name: (state, seconds, why)}; report.json and e2e.log stay in DIR."""
    DIR.mkdir(parents=True, exist_ok=True)
    report = DIR / "report.json"
    report.unlink(missing_ok=True)
    argv = [
        *in_netns("client"),
        conf.BIN / "ginkgo",
        f"--procs={procs}",
        f"--timeout={timeout}",
        "--no-color",
        "--keep-going",
        "--silence-skips",
        f"--focus={focus}",
        f"--output-dir={DIR}",
        f"--json-report={report.name}",
        "--poll-progress-after=5m",
    ]
    argv += [f"--skip={skip}"] if skip else []
    argv += ["--junit-report=junit.xml"] if junit else []
    argv += [
        conf.BIN / "e2e.test",
        "--",
        f"--kubeconfig={pki.DIR}/admin.kubeconfig",
        "--provider=skeleton",
        f"--num-nodes={nodes}",
        "--node-os-distro=debian",
        f"--kubectl-path={conf.BIN}/kubectl",
        f"--report-dir={DIR}",
        "--disable-log-dump",
        "--system-pods-startup-timeout=2m",
    ]
    env = {**os.environ, "PATH": f"{conf.BIN}:{os.environ['PATH']}"}
    env.pop("KUBECONFIG", None)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("rig: told to stop"))
    with (DIR / "e2e.log").open("w") as log:
        ginkgo = subprocess.Popen(
            [str(arg) for arg in argv],
            cwd=DIR,
            env=env,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            ginkgo.wait()
        finally:  # told to stop: the tests must not outlive this command
            if ginkgo.poll() is None:
                os.killpg(ginkgo.pid, signal.SIGKILL)
    if not report.exists():
        raise SystemExit(f"rig: no report; see {DIR}/e2e.log")
    if junit:
        shutil.move(DIR / "junit.xml", junit)
    results = {}
    for suite in json.loads(report.read_text()):
        for spec in suite["SpecReports"] or []:
            why = " ".join(spec.get("Failure", {}).get("Message", "").split())[:400]
            if spec["State"] == "skipped" and not why:
                continue  # not chosen by focus and skip
            is_spec = spec["LeafNodeType"] == "It"
            name = spec_name(spec) if is_spec else spec["LeafNodeType"]
            if is_spec or spec["State"] != "passed":
                results[name] = (spec["State"], spec["RunTime"] / 1e9, why)
    return results


def command(args):
    """`rig.py e2e`: with --baseline exactly the specs of that file, else those of --focus."""
    wanted = None
    if args.baseline:
        with Path(args.baseline).open() as lines:
            wanted = [line.rstrip("\n") for line in lines if line.strip() and line[0] != "#"]
        missing = set(wanted) - set(names())
        if missing:
            raise SystemExit("rig: no such specs: " + "; ".join(sorted(missing)))
        args.focus, args.skip = only(wanted), None
    if args.list:
        print("\n".join(chosen(args.focus, args.skip)))
        return 0
    began = time.monotonic()
    results = run_tests(
        conf.State().nodes, args.focus, args.skip, args.procs, args.timeout, args.junit
    )
    counts = {}
    for name, (state, seconds, why) in sorted(results.items()):
        counts[state] = counts.get(state, 0) + 1
        print(f"{state:8}{seconds:6.0f} s  {name}" + (f"\n           {why}" if why else ""))
    missing = sorted(set(wanted or ()) - set(results))
    for name in missing:
        print(f"not run           {name}")
    print(
        ", ".join(f"{number} {state}" for state, number in sorted(counts.items()))
        + f" in {time.monotonic() - began:.0f} s"
    )
    if args.passed:
        with Path(args.passed).open("w") as out:
            out.writelines(
                f"{name}\n" for name, result in sorted(results.items()) if result[0] == "passed"
            )
    return 0 if not missing and set(counts) <= {"passed", "skipped"} else 1

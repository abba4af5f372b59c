"""A lab as a whole; the package's docstring lists what it can do."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from ebpf_lb.datapath.pins import BPFFS
from ebpf_lb.errors import UserError
from ebpf_lb.lab import (
    building,
    cgroups,
    kubeconfig,
    namespaces,
    pods,
    services,
    state,
    status,
)
from ebpf_lb.lab.cloud import requests as cloud
from ebpf_lb.lab.names import (
    API_PORT,
    LABS,
    SERVICES,
    LabNames,
    NodeNames,
    clients,
    control_addresses,
)
from ebpf_lb.lab.objects.apply import apply_each, apply_files, delete_files
from ebpf_lb.lab.objects.client import Client
from ebpf_lb.lab.objects.manifest import read_manifests
from ebpf_lb.lab.objects.rehearsal import rehearse
from ebpf_lb.lab.options import DEFAULT_NAME, Options
from ebpf_lb.lab.pods import Pod
from ebpf_lb.lab.processes import Place, Process

_AGENT_WITHIN_S = 300  # several units may have to be compiled first, on a busy machine


class AlreadyUpError(UserError):
    """There is a lab of this name."""


class NotPossibleError(UserError):
    """Rights or a part of the system are missing."""


class Lab:
    """A lab of this name, whether it is up or not. Raises OptionsError for a bad name."""

    def __init__(self, name: str = DEFAULT_NAME):
        self.names = LabNames(name)

    # --- up and down

    def up(
        self,
        options: Options | None = None,
        files: Sequence[str | Path] = (),
        progress: Callable[[str], None] = lambda _: None,
        made_by: str = "",
    ) -> None:
        """Builds the lab and waits until every agent serves; then applies the files, which are
        checked before anything is built (ManifestError).

        What an interruption leaves is removed again. An agent that does not come up, and a manifest
        that is refused after all, are UserErrors that leave the lab running, to be looked into.
        """
        options = options or Options()
        _check_system()
        documents = list(read_manifests(map(str, files))) if files else []
        networks = [str(network) for network in SERVICES.networks(options.families)]
        rehearse(documents, networks, control_addresses(options), API_PORT)
        with state.locked(self.names):
            self._check_not_up()
            kept = state.State(self.names, options, made_by=made_by)
            kept.save()
            try:
                building.build(kept, progress)
                if options.proxy == "ebpf-lb":
                    progress("waiting for the agents")
                    self.wait_for_agents()
                if files:
                    progress(f"applying {', '.join(map(str, files))}")
                    list(apply_each(self.client, documents))
            except BaseException as error:
                if not (kept.complete and isinstance(error, UserError)):
                    building.remove(self.names)
                raise

    def _check_not_up(self) -> None:
        names = self.names
        down = f"`ebpf-lb lab down{state.name_option(names.name)}`"
        if self.running:
            raise AlreadyUpError(f"lab {names.name!r} runs already: use it, or end it with {down}")
        if self.exists:
            raise AlreadyUpError(f"lab {names.name!r} was left half-built: remove it with {down}")

    def down(self) -> None:
        """Removes the lab, or whatever there is of it. Twice is as good as once."""
        _check_root()
        if cgroups.joined().startswith(f"/{self.names.cgroup.name}/"):
            raise NotPossibleError(
                f"this runs inside lab {self.names.name!r}: end the lab from outside"
            )
        with state.locked(self.names):
            building.remove(self.names)

    # --- what is there

    @property
    def name(self) -> str:
        return self.names.name

    @property
    def exists(self) -> bool:
        """Whether there is anything of it, built whole or half."""
        names = self.names
        places = (names.state_file, names.bpffs, names.cgroup)
        return any(place.exists() for place in places) or bool(names.existing_netns())

    @property
    def made_by(self) -> str:
        """Who called `up`, where it was not a person; "" also if nobody knows."""
        try:
            return state.State.load(self.names).made_by
        except UserError:
            return ""

    @property
    def running(self) -> bool:
        try:
            return state.State.load(self.names).complete
        except state.NotUpError:
            return False

    @property
    def options(self) -> Options:
        """What `up` was given. Raises NotUpError."""
        return state.State.load(self.names).options

    @property
    def client(self) -> Client:
        """On the API server, by its local socket. Raises NotUpError where there is none."""
        if not self.names.api_socket.exists():
            state.State.load(self.names)  # is there a lab at all?
        return Client(self.names.api_socket)

    def nodes(self) -> list[NodeNames]:
        return self._nodes(self.options)

    def node(self, name: str) -> NodeNames:
        """Raises NoSuchHostError."""
        return self.names.node(self.options, name)

    def _nodes(self, options: Options) -> list[NodeNames]:
        return self.names.nodes(options)

    def pods(self) -> list[Pod]:
        return pods.running(self.names)

    def hosts(self) -> list[str]:
        options = self.options
        return ["client", *clients(options)[1:], "control", "router"] + [
            node.name for node in self._nodes(options)
        ]

    def log(self, process: str) -> Path:
        return self.names.log(process)

    def kubeconfig(self, node: str | None = None) -> str:
        if node is not None:
            self.node(node)
        return kubeconfig.text(self.names, self.options, node or "admin")

    def apply(self, files: Sequence[str | Path]) -> None:
        """As `ebpf-lb lab apply -f`; "-" is the standard input."""
        apply_files(self.client, [str(file) for file in files])

    def delete(self, files: Sequence[str | Path]) -> None:
        """As `ebpf-lb lab delete -f`."""
        delete_files(self.client, [str(file) for file in files])

    # --- inside

    def place(self, host: str) -> Place:
        """Where processes of a host run. Raises NoSuchPodError for what is neither host nor pod."""
        options = self.options
        for node in self._nodes(options):
            if node.name == host:
                return services.node_place(node)
        if host in ("client", *clients(options)):
            return services.host_place(self.names, "client1" if host == "client" else host)
        if host in ("control", "router"):
            return services.host_place(self.names, host)
        place = pods.find(self.names, host).place
        return replace(place, environment={**place.environment, "EBPF_LB_LAB": self.names.name})

    def exec(self, host: str, argv: Sequence[str], **run: Any) -> subprocess.CompletedProcess[str]:
        """Runs a command on a host; keywords as subprocess.run's."""
        place = self.place(host)
        keywords: dict[str, Any] = {
            "capture_output": not {"stdout", "stderr"} & run.keys(),
            "text": True,
            "env": place.full_environment(),
            **run,
        }
        return subprocess.run(list(argv), preexec_fn=place.enter, **keywords)

    def popen(self, host: str, argv: Sequence[str], **popen: Any) -> subprocess.Popen[str]:
        """Starts a command on a host; keywords as subprocess.Popen's."""
        place = self.place(host)
        keywords: dict[str, Any] = {"text": True, "env": place.full_environment(), **popen}
        return subprocess.Popen(list(argv), preexec_fn=place.enter, **keywords)

    @contextmanager
    def entered(self, host: str) -> Iterator[None]:
        """This thread is in the host's network namespace meanwhile."""
        netns = self.place(host).netns
        assert netns is not None
        with namespaces.entered(netns):
            yield

    # --- outside

    def routes(self) -> dict[str, dict[str, Any]]:
        """External address -> {"nodes": its nodes' names, "pinned": whether `route` said so}."""
        state.State.load(self.names)
        return cloud.ask(self.names.cloud_socket, {})

    def route(self, address: str, node: str | None) -> dict[str, dict[str, Any]]:
        """Pins the way to an external address to a node; with None the cloud decides again. Yields
        the routes as they are now. Raises NoSuchHostError, CloudError."""
        if node is not None:
            self.node(node)
        return cloud.ask(self.names.cloud_socket, {"address": address, "node": node})

    # --- agents

    def start_agent(
        self, name: str, xdp: str | None = None, host_routing: str | None = None
    ) -> None:
        """Starts a node's agent, unless it runs. xdp, host_routing: its --xdp and --host-routing,
        if others than the lab's."""
        node = self.node(name)
        with self._changed() as kept:
            running = kept.processes.get(node.agent)
            if running is None or not running.alive:
                options = replace(
                    kept.options,
                    xdp=xdp or kept.options.xdp,
                    host_routing=host_routing or kept.options.host_routing,
                )
                services.start_agent(node, options, kept.recorder(node.agent))

    def stop_agent(self, name: str) -> None:
        """Asks a node's agent to end, and waits."""
        self._end_agent(name, lambda process: process.end())

    def kill_agent(self, name: str) -> None:
        """Ends a node's agent as a crash would."""

        def kill(process: Process) -> None:
            process.signal(signal.SIGKILL)
            process.wait(10)

        self._end_agent(name, kill)

    def _end_agent(self, name: str, end: Callable[[Process], None]) -> None:
        node = self.node(name)
        with self._changed() as kept:
            process = kept.processes.pop(node.agent, None)
            if process is not None:
                end(process)
                kept.save()

    def agent_process(self, name: str) -> Process | None:
        """A node's agent, if it runs."""
        process = state.State.load(self.names).processes.get(self.node(name).agent)
        return process if process and process.alive else None

    def agent_healthy(self, name: str) -> bool:
        return services.agent_serves(self.node(name))

    def wait_for_agents(self, timeout_s: float = _AGENT_WITHIN_S, only: str | None = None) -> None:
        """Until all agents that were started serve, or only this node's; NotServingError if one
        does not."""
        kept = state.State.load(self.names)
        end = time.monotonic() + timeout_s
        for node in self._nodes(kept.options):
            if node.agent not in kept.processes or only not in (None, node.name):
                continue
            while not services.agent_serves(node):
                if not kept.processes[node.agent].alive:
                    raise services.complaint(
                        f"the agent on {node.name} ended", self.log(node.agent)
                    )
                if time.monotonic() > end:
                    raise services.complaint(
                        f"the agent on {node.name} does not get ready", self.log(node.agent)
                    )
                time.sleep(0.05)

    # --- the record

    @contextmanager
    def _changed(self) -> Iterator[state.State]:
        state.State.load(self.names)  # says that there is no such lab before a folder is made
        with state.locked(self.names):
            yield state.State.load(self.names)

    def status(self) -> dict[str, Any]:
        """What `ebpf-lb lab status -o json` prints."""
        return status.collect(self.names)


def all_labs() -> list[Lab]:
    """Every lab that there is on this machine, by name."""
    if not LABS.is_dir():
        return []
    return [Lab(path.name) for path in sorted(LABS.iterdir())]


def _check_root() -> None:
    if os.geteuid() != 0:
        raise NotPossibleError("a lab makes network namespaces, which needs root: use sudo")


def _check_system() -> None:
    _check_root()
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, mount_point, kind, *_ = line.split()
        if kind == "bpf" and mount_point == str(BPFFS):
            return
    raise NotPossibleError(f"{BPFFS} is not there: run `mount -t bpf bpf {BPFFS}`")

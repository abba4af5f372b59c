"""Running commands and keeping processes, each known by its id and its start time."""

import os
import signal
import subprocess
import threading
import time
from pathlib import Path

from . import conf

_lock = threading.Lock()


def run(*argv, stdin=None, check=True, timeout=120):
    """Runs a command and returns what it printed; says what it said if it failed."""
    done = subprocess.run(
        [str(arg) for arg in argv],
        input=stdin,
        text=True,
        cwd="/",
        capture_output=True,
        timeout=timeout,
    )
    if check and done.returncode:
        raise RuntimeError(
            f"{' '.join(map(str, argv))}: exit {done.returncode}\n"
            f"{done.stdout}{done.stderr}".rstrip()
        )
    return done.stdout


def in_netns(name):
    """The words before a command that run it in a network namespace and nothing else."""
    return ["nsenter", f"--net=/run/netns/{conf.netns(name)}", "--"]


def in_node(state, node):
    """The words before a command that run it as a process of the node."""
    init = state.processes[f"{node.name}/init"]["pid"]
    return ["nsenter", "-t", str(init), "-m", "-u", "-i", "-n", "-p", "--"]


def start_time(pid):
    """When a process was started, which with its id names it for good; None if it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields[19]


def alive(process):
    return process is not None and start_time(process["pid"]) == process["start"]


def _child_of(pid, deadline=10):
    end = time.monotonic() + deadline
    while time.monotonic() < end:
        try:
            children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        except OSError:
            children = None
        if children:
            return int(children[0])
        if children is None or start_time(pid) is None:
            break
        time.sleep(0.02)
    raise RuntimeError(f"process {pid} started nothing")


def start(state, name, argv, env=None, cgroups=(), forks=False):
    """Starts a process that outlives this command; its output goes to LOGS/name.log.

    cgroups: directories to put it in. forks: argv's first program (nsenter or unshare into a
    new process namespace) stays in front of the real one, whose id is the one to remember."""
    log = conf.LOGS / f"{name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)

    def enter_cgroups():
        for cgroup in cgroups:
            Path(cgroup, "cgroup.procs").write_text("0")

    with log.open("ab") as out:
        process = subprocess.Popen(
            [str(arg) for arg in argv],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            cwd="/",
            env={**os.environ, **(env or {})},
            start_new_session=True,
            preexec_fn=enter_cgroups,
        )
    threading.Thread(target=process.wait, daemon=True).start()
    pid = _child_of(process.pid) if forks else process.pid
    with _lock:
        state.processes[name] = {"pid": pid, "start": start_time(pid)}
        state.save()
    return pid


def stop(state, name, grace=10, sign=signal.SIGTERM):
    """Ends a process by its id: asks, waits, then kills."""
    with _lock:
        process = state.processes.get(name)
    if process is None:
        return
    for one, wait in ((sign, grace), (signal.SIGKILL, 10)):
        if not alive(process):
            break
        os.kill(process["pid"], one)
        end = time.monotonic() + wait
        while alive(process) and time.monotonic() < end:
            time.sleep(0.05)
    with _lock:
        state.processes.pop(name, None)
        state.save()


def wait_for(what, test, timeout=90, every=0.3):
    """Waits until test() returns something true, and returns that."""
    end = time.monotonic() + timeout
    why = ""
    while time.monotonic() < end:
        try:
            found = test()
            if found:
                return found
        except (RuntimeError, OSError, subprocess.TimeoutExpired) as error:
            why = str(error)
        time.sleep(every)
    raise SystemExit(f"rig: {what} did not come up within {timeout} s {why}".rstrip())


def each(function, things):
    """Calls function for all things at once; raises the first failure."""
    failures = []

    def call(thing):
        try:
            function(thing)
        except BaseException as error:  # handed on below
            failures.append(error)

    threads = [threading.Thread(target=call, args=(thing,)) for thing in things]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]

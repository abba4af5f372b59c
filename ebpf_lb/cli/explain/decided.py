"""What becomes of a new connection: the programs' own word on it."""

from typing import TYPE_CHECKING, Any, NamedTuple

from ebpf_lb.cli.explain.ends import Asker
from ebpf_lb.cli.explain.way import Hooks, hooks_of, taken, travel
from ebpf_lb.errors import UserError
from ebpf_lb.model.values import Protocol

if TYPE_CHECKING:
    from ebpf_lb.datapath.dry_run import Journey, Sandbox
    from ebpf_lb.datapath.question import Decision
    from ebpf_lb.datapath.reader import View

_ACTIONS = {"pass": "PASS", "forward": "TRANSLATE", "reject": "REJECT", "drop": "DROP"}
_NO_REASON = 0


class Decided(NamedTuple):
    """`journey`: None where no program could be run on a packet. `trouble`, `remark`: sentences,
    "" for none."""

    decision: "Decision"
    journey: "Journey | None" = None
    trouble: str = ""
    remark: str = ""


def decide(
    view: "View",
    asker: Asker,
    destination: tuple[bytes, int],
    protocol: Protocol,
    service_id: int = 0,
    sandbox: "Sandbox | None" = None,
    hooks: Hooks | None = None,
) -> Decided:
    """By the programs at the hooks that the packet passes; where they cannot be run, by what they
    ask as well: decide(). service_id: of whom is asked, where that is a Service."""
    from ebpf_lb.datapath.dry_run import NoPrograms, Sandbox, Unavailable

    try:
        hooks = hooks or hooks_of(view)
        if sandbox is not None:
            journey = travel(sandbox, asker, destination, protocol, hooks)
        else:
            with Sandbox(view) as own:
                journey = travel(own, asker, destination, protocol, hooks)
    except NoPrograms as missing:
        decision = _ask(view, asker, destination, protocol)
        if not missing.args[0]:
            return Decided(decision, remark=f"This node has no way to {_other_end(asker)}.")
        trouble = (
            f"None of our programs is at {missing.args[0]}, where this client's packets pass: "
            "nothing is translated there. `ebpf-lb status` shows the hooks."
        )
        passed = decision._replace(
            action="PASS", reason=view.layout.reasons[_NO_REASON], backend=None, masquerade=False
        )
        return Decided(passed, trouble=trouble)
    except Unavailable as reason:
        remark = (
            f"The programs were not run on a made packet, only asked for the verdict: {reason}."
        )
        return Decided(_ask(view, asker, destination, protocol), remark=remark)
    remark = ""
    if journey.verdict == "pass" and taken(asker, destination, protocol):
        remark = "A process of this node listens on that very address and port, and goes first."
    return Decided(_decision(view, journey, service_id), journey, remark=remark)


def _other_end(asker: Asker) -> str:
    own = asker.client.value in ("NODE", "LOCALHOST")
    return "that address" if own else "the client"


def _ask(
    view: "View", asker: Asker, destination: tuple[bytes, int], protocol: Protocol
) -> "Decision":
    from ebpf_lb.datapath.question import Question

    try:
        program: Any = Question(view)
    except FileNotFoundError:
        raise UserError(
            "The programs on this node are of a version that explains nothing: restart the agent "
            "with this version."
        ) from None
    with program as question:
        decision: Decision = question.ask(
            asker.client, (asker.address, asker.port), destination, protocol
        )
    return decision


def _decision(view: "View", journey: "Journey", service_id: int) -> "Decision":
    """In the terms of decide(), read off what became of the packet."""
    from ebpf_lb.datapath.question import Decision
    from ebpf_lb.datapath.reader.services import backends

    reason = journey.reason or view.layout.reasons[_NO_REASON]
    action = _ACTIONS[journey.verdict]
    if journey.verdict != "forward":
        return Decision(action, reason, 0, 0, None, 0, False, False)
    address, port = journey.seen.destination
    chosen = next(
        (
            one
            for one in backends(view)
            if (one.address, one.port, one.service_id) == (address, port, service_id)
        ),
        None,
    )
    return Decision(
        action,
        reason,
        service_id,
        chosen.id if chosen else 0,
        address,
        port,
        journey.seen.source != journey.there[0].before.source,
        chosen is not None and "ON_NODE" in chosen.flags,
    )

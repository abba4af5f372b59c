"""What was found out, for people and for scripts."""

import textwrap
from dataclasses import dataclass, field
from typing import Any

import click

from ebpf_lb.cli import output
from ebpf_lb.model.values import Family

_COLOURS = {"forward": "green", "pass": "yellow"}
_SHOWN = 8  # of candidates and of what is left out


@dataclass(frozen=True, slots=True)
class Step:
    """`at`: where it happens. `rules`: of docs/semantics.md."""

    at: str
    says: str
    rules: tuple[str, ...] = ()


@dataclass(slots=True)
class Candidate:
    """`answered`, `unanswered`, `refused`: connections to it that the node knows."""

    address: str
    where: str
    share: float
    answered: int = 0
    unanswered: int = 0
    refused: int = 0
    node: str | None = None
    pod: str | None = None


@dataclass(frozen=True, slots=True)
class Excluded:
    address: str
    why: str
    rule: str = ""


@dataclass(slots=True)
class Explanation:
    """`source`: what the backend sees as its client. `troubles`: what stops connections, or is
    likely to."""

    client: str
    kind: str
    asked: str
    verdict: str
    reason: str
    service: str | None = None
    frontend: str | None = None
    backend: str | None = None
    source: str | None = None
    there: list[Step] = field(default_factory=list)
    back: list[Step] = field(default_factory=list)
    candidates: list[Candidate] = field(default_factory=list)
    excluded: list[Excluded] = field(default_factory=list)
    troubles: list[str] = field(default_factory=list)
    beyond: list[str] = field(default_factory=list)
    whole: bool = False  # every candidate is shown

    def trouble(self, sentence: str) -> None:
        if sentence not in self.troubles:
            self.troubles.append(sentence)

    def row(self) -> dict[str, Any]:
        return {
            "from": self.client,
            "fromKind": self.kind,
            "to": self.asked,
            "verdict": self.verdict,
            "reason": self.reason,
            "service": self.service,
            "frontend": self.frontend,
            "backend": self.backend,
            "source": self.source,
            "candidates": [
                {
                    "address": one.address,
                    "where": one.where,
                    "share": one.share,
                    "node": one.node,
                    "pod": one.pod,
                    "answered": one.answered,
                    "unanswered": one.unanswered,
                    "refused": one.refused,
                }
                for one in self.candidates
            ],
            "excluded": [
                {"address": one.address, "why": one.why, "rule": one.rule or None}
                for one in self.excluded
            ],
            "troubles": self.troubles,
            "steps": [_step(one) for one in self.there],
            "back": [_step(one) for one in self.back],
            "beyond": self.beyond,
        }

    def text(self) -> str:
        backend = f" to {self.backend}" if self.backend else ""
        reason = f" ({self.reason})" if self.verdict != "forward" and self.reason != "NONE" else ""
        verdict = click.style(
            f"{self.verdict}{backend}{reason}", fg=_COLOURS.get(self.verdict, "red"), bold=True
        )
        lines = [f"{self.client} ({self.kind})", f"  -> {self.asked}: {verdict}"]
        if self.troubles:
            lines.append(click.style("Trouble:", fg="red", bold=True))
            lines += [line for one in self.troubles for line in _wrapped(one)]
        lines += _steps("The way there:", self.there)
        if self.candidates and self.whole:
            lines += ["Candidates:", self._table()]
        elif self.candidates:
            shown = [_brief(one) for one in self.candidates[:_SHOWN]]
            rest = len(self.candidates) - len(shown)
            more = f", and {rest} more (--all)" if rest else ""
            lines += ["Candidates:", *_wrapped(", ".join(shown) + more)]
        if self.excluded:
            lines.append("Left out:")
            for one in self.excluded if self.whole else self.excluded[:_SHOWN]:
                rule = f" [{one.rule}]" if one.rule else ""
                lines += _wrapped(f"{one.address}: {one.why}{rule}")
            if len(self.excluded) > _SHOWN and not self.whole:
                lines.append(f"  … and {len(self.excluded) - _SHOWN} more (--all)")
        lines += _steps("The way back:", self.back)
        if self.beyond:
            lines.append("Beyond us:")
            lines += [line for one in self.beyond for line in _wrapped(one)]
        return "\n".join(lines)

    def _table(self) -> str:
        rows = [
            [
                one.address,
                one.node or one.where,
                f"{one.share:.1%}",
                f"{one.answered:,}",
                f"{one.unanswered:,}",
                f"{one.refused:,}",
            ]
            for one in self.candidates
        ]
        header = ["BACKEND", "RUNS", "SHARE", "ANSWERED", "UNANSWERED", "REFUSED"]
        return output.table(header, rows, right=header[2:], indent="  ")


def say_reason(found: Explanation) -> None:
    """Why it does not go on, in the reason's own words."""
    from ebpf_lb.datapath.layout import load

    if found.verdict not in ("reject", "drop"):
        return
    known = load(Family.IPV4).reasons.values()
    for reason in (one for one in known if one.name == found.reason):
        remedy = f" What to do: {reason.remedy}." if reason.remedy else ""
        found.troubles.insert(0, f"{reason.name}: {reason.sentence}.{remedy}")


def _brief(one: Candidate) -> str:
    where = one.node or ("here" if one.where == "here" else one.where)
    return f"{one.address} ({where}, {one.share:.0%})"


def _step(one: Step) -> dict[str, Any]:
    return {"at": one.at, "says": one.says, "rules": list(one.rules)}


def _steps(title: str, steps: list[Step]) -> list[str]:
    if not steps:
        return []
    lines = [title]
    for number, one in enumerate(steps, 1):
        rules = f" [{', '.join(one.rules)}]" if one.rules else ""
        at = f"{one.at}: " if one.at else ""
        lines += textwrap.wrap(
            f"{at}{one.says}{rules}",
            output.columns(),
            initial_indent=f"  {number}. ",
            subsequent_indent="     ",
            break_on_hyphens=False,
        )
    return lines


def _wrapped(sentence: str) -> list[str]:
    return textwrap.wrap(
        sentence,
        output.columns(),
        initial_indent="  - ",
        subsequent_indent="    ",
        break_on_hyphens=False,
    )

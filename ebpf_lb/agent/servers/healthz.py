"""`/healthz` and `/livez` as kube-proxy answers them (docs/semantics.md, KEP-3836), and `/readyz`.

Healthy: no change has waited longer than a minute for the maps to follow. `/healthz` also asks
whether the node is to receive connections, and whether the maps have been filled once; `/livez`
does not, since a restart would change neither: it answers as soon as the process runs, and says
what it waits for. `/readyz` is for people and for rollouts: is this node served as it should be?
What a tenant's Service lacks is said there, too, but makes no node unready: else a tenant could
hold up everybody's upgrade.
"""

import json
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import NamedTuple, Protocol

LONGEST_WAIT_S = 60.0
_SENTENCES = 20  # that are shown; the rest is counted


class Answer(NamedTuple):
    status: int
    body: str


class State(Protocol):
    """What is asked of the agent here, by other threads."""

    @property
    def waiting_since(self) -> float | None:
        """When the oldest change came that is not yet in the maps; None for none."""

    @property
    def waiting_for(self) -> Sequence[str]:
        """What has to come before the maps can be filled."""

    @property
    def complete(self) -> bool:
        """Whether they were filled once."""

    @property
    def eligible(self) -> bool:
        """Whether the node is to receive connections."""

    @property
    def problems(self) -> Sequence[str]:
        """Why the node is not served as it should be, in sentences."""

    @property
    def left_out(self) -> Sequence[str]:
        """What is not in the maps, in sentences."""

    @property
    def hook_problems(self) -> Sequence[str]:
        """What others did at our hooks, in sentences: it may keep packets from us, or may not."""


class Starting:
    """The state of an agent that is still being put together."""

    waiting_since: float | None = None
    complete = False
    eligible = True
    problems: Sequence[str] = ()
    left_out: Sequence[str] = ()
    hook_problems: Sequence[str] = ()

    def __init__(self, *waiting_for: str) -> None:
        self.waiting_for: Sequence[str] = waiting_for


class Health:
    """`state` may be replaced at any time. `clock`: monotonic seconds; `today`: the time of day."""

    def __init__(
        self,
        state: State,
        clock: Callable[[], float],
        today: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.state = state
        self._clock = clock
        self._today = today
        self._last_well = today()
        self.answers: Counter[tuple[str, int]] = Counter()
        """How often each page was answered with which status."""

    # rule: HE-5
    def healthz(self) -> Answer:
        state = self.state
        prompt = self.prompt()
        body = self._body(prompt) | {"nodeEligible": state.eligible}
        if state.hook_problems:
            body["hookProblems"] = _few(state.hook_problems)
        return self._answer("healthz", prompt and state.complete and state.eligible, body)

    # rule: HE-6
    def livez(self) -> Answer:
        prompt = self.prompt()
        body = self._body(prompt)
        if waiting_for := list(self.state.waiting_for):
            body["waitingFor"] = waiting_for
        return self._answer("livez", prompt, body)

    def readyz(self) -> Answer:
        state = self.state
        prompt = self.prompt()
        problems = list(state.problems)
        if not prompt:
            problems.append(f"A change has waited for more than {LONGEST_WAIT_S:.0f} s.")
        ready = state.complete and not problems
        body = self._body(prompt) | {
            "ready": ready,
            "waitingFor": list(state.waiting_for),
            "problems": _few(problems),
            "leftOut": _few(state.left_out),
            "hookProblems": _few(state.hook_problems),
        }
        return self._answer("readyz", ready, body)

    def prompt(self) -> bool:
        """Whether the maps follow the cluster: no change has waited too long for them."""
        since = self.state.waiting_since
        return since is None or self._clock() - since < LONGEST_WAIT_S

    def _answer(self, page: str, well: bool, body: dict[str, object]) -> Answer:
        status = 200 if well else 503
        self.answers[page, status] += 1
        return Answer(status, json.dumps(body))

    def _body(self, prompt: bool) -> dict[str, object]:
        now = self._today()
        if prompt:
            self._last_well = now
        return {"lastUpdated": str(self._last_well), "currentTime": str(now)}


def _few(sentences: Sequence[str]) -> list[str]:
    shown = sorted(set(sentences))
    if len(shown) > _SENTENCES:
        shown[_SENTENCES:] = [f"And {len(shown) - _SENTENCES} more; /status names them."]
    return shown

"""`/healthz` and `/livez`, as kube-proxy answers them: docs/semantics.md, KEP-3836.

Healthy: no change has waited longer than a minute for the maps to follow. `/healthz` also asks
whether the node is to receive connections, and whether the maps have been filled once; `/livez`
does not, since a restart would change neither.
"""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import NamedTuple

LONGEST_WAIT_S = 60.0


class Answer(NamedTuple):
    status: int
    body: str


class Health:
    """`waiting_since`: when the oldest change came that is not yet in the maps, None for none;
    `complete`: whether they were filled once; `eligible`: of the node. `clock`: monotonic seconds;
    `today`: the time of day."""

    def __init__(
        self,
        waiting_since: Callable[[], float | None],
        complete: Callable[[], bool],
        eligible: Callable[[], bool],
        clock: Callable[[], float],
        today: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._waiting_since = waiting_since
        self._complete = complete
        self._eligible = eligible
        self._clock = clock
        self._today = today
        self._last_well = today()

    # rule: HE-5
    def healthz(self) -> Answer:
        eligible = self._eligible()
        body = self._body(self.prompt())
        body["nodeEligible"] = eligible
        well = self.prompt() and self._complete() and eligible
        return Answer(200 if well else 503, json.dumps(body))

    # rule: HE-6
    def livez(self) -> Answer:
        prompt = self.prompt()
        return Answer(200 if prompt else 503, json.dumps(self._body(prompt)))

    def prompt(self) -> bool:
        """Whether the maps follow the cluster: no change has waited too long for them."""
        since = self._waiting_since()
        return since is None or self._clock() - since < LONGEST_WAIT_S

    def _body(self, prompt: bool) -> dict[str, object]:
        now = self._today()
        if prompt:
            self._last_well = now
        return {"lastUpdated": str(self._last_well), "currentTime": str(now)}

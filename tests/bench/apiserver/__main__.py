"""What one agent costs the real API server, and what follows for thousands of nodes.

    python -m tests.bench.apiserver [--services N] [--watches N] [--page]
                                                                            (`make bench-apiserver`)

--page: only the page is made anew, of what was measured last.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys

from tests.bench import report
from tests.bench.apiserver import measure, page, server

_PODS = 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--services", type=int, default=2000)
    parser.add_argument("--watches", type=int, default=400)
    parser.add_argument("--changes", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--page", action="store_true")
    words = parser.parse_args()
    if not words.page:
        if not server.available():
            sys.exit("there is no API server: `make -C tests/cluster/rig` builds it")
        part = asyncio.run(_measured(words))
        page.MEASURED.write_text(json.dumps(part, indent=1) + "\n")
    (report.PROJECT / page.PAGE).write_text(page.text(page.measured()))
    print(f"the report is {page.PAGE}")


async def _measured(words: argparse.Namespace) -> dict[str, object]:
    with server.running() as one:
        print("the API server runs", flush=True)
        await measure.fill(one, words.services, _PODS)
        print(f"{words.services} Services are in it", flush=True)
        lists = await measure.lists(one, words.services, words.rounds)
        print("lists are measured", flush=True)
        watchers = (1, words.watches // 4, words.watches)
        changes = await measure.changes(one, words.services, _PODS, watchers, words.changes)
        print("changes are measured", flush=True)
        reconnects = await measure.reconnects(one, words.watches)
    return {
        "machine": report.machine(),
        "services": words.services,
        "pods": _PODS,
        "lists": lists,
        "changes": changes,
        "reconnects": reconnects,
    }


if __name__ == "__main__":
    main()

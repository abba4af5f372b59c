"""Many TCP connections that are held and used now and then. Standard library.

talk.py serve PORT NAME        prints "ready"; answers each line with `NAME LINE`
talk.py hold TARGET*COUNT …    `10.96.0.9:9000*200`, `[fd00:10:96::9]:9000*200`: opens so many
                               connections to each, and asks by each every few seconds. Prints
                               "ready" when all have been answered once, and when its standard input
                               ends, after one more question by each,
                               {"held": {TARGET: {NAME: COUNT}}, "questions": N, "lost": […]}
                               where each of the lost is {"target", "name", "after", "why"}.
"""

import asyncio
import json
import random
import re
import sys
from collections import Counter
from contextlib import suppress

CONNECT_S, ANSWER_S = 30.0, 20.0
PAUSE_S = (1.0, 3.0)
AT_ONCE = 20  # connections being opened


async def serve(port: int, name: str) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                writer.write(name.encode() + b" " + line)
                await writer.drain()
        except OSError:
            pass  # the client says what happened
        finally:
            writer.close()

    server = await asyncio.start_server(answer, None, port, backlog=1024)
    print("ready", flush=True)
    await server.serve_forever()


class Holder:
    def __init__(self) -> None:
        self.over = asyncio.Event()
        self.questions = 0
        self.held: dict[str, Counter[str]] = {}
        self.lost: list[dict[str, object]] = []
        self._opening = asyncio.Semaphore(AT_ONCE)

    async def hold(self, target: str, number: int, ready: "asyncio.Future[None]") -> None:
        """One connection's life."""
        name, asked = "", 0
        try:
            found = re.fullmatch(r"\[?(.+?)\]?:(\d+)", target)
            assert found is not None
            async with self._opening:
                reader, writer = await asyncio.wait_for(
                    asyncio.open_connection(found[1], int(found[2])), CONNECT_S
                )
                name = await self._ask(reader, writer, f"{target} {number} 0", "")
            ready.set_result(None)
            while not self.over.is_set():
                asked += 1
                await self._ask(reader, writer, f"{target} {number} {asked}", name)
                with suppress(TimeoutError):
                    await asyncio.wait_for(self.over.wait(), random.uniform(*PAUSE_S))
            await self._ask(reader, writer, f"{target} {number} last", name)
            writer.close()
            self.held[target][name] += 1
        except (TimeoutError, OSError, ValueError) as error:
            why = f"{type(error).__name__}: {error}"
            self.lost.append({"target": target, "name": name, "after": asked, "why": why})
        finally:
            if not ready.done():
                ready.set_result(None)

    async def _ask(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        question: str,
        name: str,
    ) -> str:
        """Who answered; ValueError if it is not `name`, or not an answer to this question."""
        writer.write(question.encode() + b"\n")
        answer = (await asyncio.wait_for(reader.readline(), ANSWER_S)).decode()
        if not answer:
            raise ConnectionError("the other end closed it")
        who, _, rest = answer.rstrip("\n").partition(" ")
        if rest != question or name not in ("", who):
            raise ValueError(f"asked {question!r} of {name!r}, heard {answer!r}")
        self.questions += 1
        return who


async def hold(targets: list[str]) -> None:
    holder, loop = Holder(), asyncio.get_running_loop()
    tasks, ready = [], []
    for each in targets:
        target, _, count = each.rpartition("*")
        holder.held[target] = Counter()
        for number in range(int(count)):
            ready.append(loop.create_future())
            tasks.append(asyncio.create_task(holder.hold(target, number, ready[-1])))
    await asyncio.gather(*ready)
    print("ready", flush=True)
    await loop.run_in_executor(None, sys.stdin.read)
    holder.over.set()
    await asyncio.gather(*tasks)
    json.dump({"held": holder.held, "questions": holder.questions, "lost": holder.lost}, sys.stdout)


if __name__ == "__main__":
    command, *words = sys.argv[1:]
    asyncio.run(serve(int(words[0]), words[1]) if command == "serve" else hold(words))

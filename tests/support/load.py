"""New connections without end, to find out whether one is lost. Standard library.

    load.py '172.30.0.11:31080/tcp' '[fd30::b]:31080/tcp' …

One after another to each destination, all at once: connect, `GET /hostname`, read to the end.
Prints "ready", and for each line of its standard input, and when that ends, a line {"answered": N,
"names": […], "lost": […]}: who answered, and in a sentence each what became of connections that
were not answered.
"""

import json
import re
import socket
import sys
import threading
import time

REQUEST = b"GET /hostname HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n"
ANSWER_S = 30.0
PAUSE_S = 0.01


def ask(address: str, port: int) -> str:
    with socket.create_connection((address, port), ANSWER_S) as connection:
        connection.sendall(REQUEST)
        answer = b""
        while chunk := connection.recv(65536):
            answer += chunk
    if not answer.startswith(b"HTTP/1.1 200 "):
        raise ConnectionError(f"cut short after {len(answer)} bytes")
    return answer.partition(b"\r\n\r\n")[2].decode()


def keep_asking(target: str, over: threading.Event, names: list[str], lost: list[str]) -> None:
    found = re.fullmatch(r"\[?(.+?)\]?:(\d+)/tcp", target)
    assert found is not None
    while not over.is_set():
        began = time.time()
        try:
            names.append(ask(found[1], int(found[2])))
        except OSError as error:
            lost.append(f"{target} at {began:.3f}, {time.time() - began:.3f} s: {error}")
        time.sleep(PAUSE_S)


def tell(names: list[str], lost: list[str]) -> None:
    told = {"answered": len(names), "names": sorted(set(names)), "lost": lost}
    print(json.dumps(told), flush=True)


def main(targets: list[str]) -> None:
    over = threading.Event()
    names: list[str] = []
    lost: list[str] = []
    asking = [threading.Thread(target=keep_asking, args=(t, over, names, lost)) for t in targets]
    for each in asking:
        each.start()
    print("ready", flush=True)
    for _ in sys.stdin:
        tell(names, lost)
    over.set()
    for each in asking:
        each.join()
    tell(names, lost)


if __name__ == "__main__":
    main(sys.argv[1:])

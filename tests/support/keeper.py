"""Keeps TCP connections open between one question and the next. Standard library; it is
started with -I -S, and reads JSON from its standard input, one list on each line:

    ["open", NAME, SOURCE_PORT, ADDRESS, PORT, SECONDS]    a connection, and a first question
    ["talk", NAME]                                         another question
    ["close", NAME], ["reset", NAME]                       the end: by a FIN, by a RST

It answers each with a line: who answered, "refused", "dropped" (nothing came within the seconds),
"ended", or what else went wrong.
"""

import json
import os
import socket
import struct
import sys

REQUEST = b"GET /hostname HTTP/1.1\r\nHost: test\r\n\r\n"
_kept: dict[str, socket.socket] = {}


def open_(name: str, source_port: int, address: str, port: int, seconds: float) -> str:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM)
    made.settimeout(seconds)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        made.bind(("", source_port))
        made.connect((address, port))
    except OSError:
        made.close()
        raise
    _kept[name] = made
    return talk(name)


def talk(name: str) -> str:
    _kept[name].sendall(REQUEST)
    head, _, body = _kept[name].recv(65536).partition(b"\r\n\r\n")
    return body.decode() if head.startswith(b"HTTP/1.1 200") else f"wrong: {head!r}"


def close(name: str) -> str:
    _kept.pop(name).close()
    return "ended"


def reset(name: str) -> str:
    _kept[name].setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    return close(name)


def answer(verb: str, *about: object) -> str:
    try:
        return {"open": open_, "talk": talk, "close": close, "reset": reset}[verb](*about)  # type: ignore[operator]
    except ConnectionRefusedError:
        return "refused"
    except TimeoutError:
        return "dropped"
    except OSError as error:
        return os.strerror(error.errno or 0)


def main() -> None:
    for line in sys.stdin:
        print(answer(*json.loads(line)), flush=True)


if __name__ == "__main__":
    main()

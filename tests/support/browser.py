"""A real browser without a screen, driven by the DevTools protocol.

    with Browser() as browser:
        page = browser.open("http://127.0.0.1:8480/")
        page.wait("document.querySelector('svg') !== null")

Debian's Chromium, as `make setup` installs it."""

import base64
import json
import shutil
import subprocess
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any, Self

import websocket

PROGRAMS = ("chromium-headless-shell", "chromium")
_PATIENCE_S = 180.0


def program() -> str | None:
    return next((found for name in PROGRAMS if (found := shutil.which(name))), None)


class Browser:
    """Runs while it is a context manager; everything that it keeps is gone afterwards."""

    def __enter__(self) -> Self:
        name = program()
        assert name is not None
        self._folder = tempfile.TemporaryDirectory(prefix="browser", ignore_cleanup_errors=True)
        folder = Path(self._folder.name)
        self._process = subprocess.Popen(
            [
                name,
                "--headless",
                "--no-sandbox",  # it is root here, and sees but our own page
                "--disable-gpu",
                "--disable-dev-shm-usage",
                "--disable-background-networking",
                "--no-first-run",
                "--hide-scrollbars",
                "--remote-debugging-port=0",
                "--remote-allow-origins=*",
                "--window-size=1600,900",
                f"--user-data-dir={folder}",
                "about:blank",
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        said = folder / "DevToolsActivePort"
        deadline = time.monotonic() + _PATIENCE_S
        while not (said.exists() and "\n" in said.read_text()):
            assert self._process.poll() is None, "the browser ended"
            assert time.monotonic() < deadline, "the browser does not start"
            time.sleep(0.05)
        self._address = f"127.0.0.1:{said.read_text().split()[0]}"
        self._pages: list[Page] = []
        return self

    def __exit__(self, *_: object) -> None:
        for page in self._pages:
            page.close()
        self._process.terminate()
        self._process.wait(_PATIENCE_S)
        self._folder.cleanup()

    def open(self, url: str) -> "Page":
        asked = urllib.request.Request(f"http://{self._address}/json/new?about:blank", method="PUT")
        with urllib.request.urlopen(asked, timeout=_PATIENCE_S) as answer:
            target = json.load(answer)
        page = Page(target["webSocketDebuggerUrl"])
        self._pages.append(page)
        page.call("Page.navigate", url=url)
        return page


class Page:
    """A tab. `errors`: what its scripts and its security policy complained of."""

    def __init__(self, address: str) -> None:
        self._socket = websocket.create_connection(address, timeout=_PATIENCE_S)
        self._number = 0
        self.errors: list[str] = []
        for domain in ("Runtime", "Log", "Page"):
            self.call(f"{domain}.enable")

    def close(self) -> None:
        self._socket.close()

    def call(self, method: str, **params: Any) -> Any:
        self._number += 1
        self._socket.send(json.dumps({"id": self._number, "method": method, "params": params}))
        while True:
            said = json.loads(self._socket.recv())
            self._note(said)
            if said.get("id") == self._number:
                assert "error" not in said, said["error"]
                return said["result"]

    def _note(self, said: dict[str, Any]) -> None:
        match said.get("method"):
            case "Runtime.exceptionThrown":
                details = said["params"]["exceptionDetails"]
                exception = details.get("exception", {}).get("description", "")
                self.errors.append(f"{details['text']} {exception}")
            case "Log.entryAdded":
                entry = said["params"]["entry"]
                # not the network's: a server may well refuse what was asked
                if entry["level"] == "error" and entry["source"] != "network":
                    self.errors.append(entry["text"])

    def run(self, script: str) -> Any:
        """The value of an expression; a promise's is waited for."""
        done = self.call(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in done, done["exceptionDetails"]
        return done["result"].get("value")

    def wait(self, script: str) -> Any:
        """The expression's value when it is true at last."""
        deadline = time.monotonic() + _PATIENCE_S
        while not (value := self.run(script)):
            shown = self.run("document.body?.innerText")
            assert time.monotonic() < deadline, f"not so: {script}; {self.errors}; {shown}"
            time.sleep(0.1)
        return value

    def click(self, selector: str) -> None:
        """As soon as it is there. What is drawn takes clicks as events: SVG has no click()."""
        quoted = json.dumps(selector)
        self.wait(f"document.querySelector({quoted}) !== null")
        event = "new MouseEvent('click', {bubbles: true, cancelable: true})"
        self.run(f"document.querySelector({quoted}).dispatchEvent({event})")

    def choose(self, selector: str, words: str) -> None:
        """The option of a <select> whose text contains the words."""
        quoted, wanted = json.dumps(selector), json.dumps(words)
        options = f"[...document.querySelector({quoted})?.options ?? []]"
        value = self.wait(f"{options}.find(o => o.text.includes({wanted}))?.value")
        self.run(
            f"(e => {{ e.value = {json.dumps(value)}; e.dispatchEvent(new Event('change')); }})"
            f"(document.querySelector({quoted}))"
        )

    def screenshot(self, path: Path) -> None:
        shot = self.call("Page.captureScreenshot", format="png")
        path.write_bytes(base64.b64decode(shot["data"]))

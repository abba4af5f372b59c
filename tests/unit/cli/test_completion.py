"""Names complete in a shell: bash's own completion, in a terminal, as somebody types."""

import os
import pty
import re
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.shell_completion import CompletionItem
from click.testing import CliRunner

from ebpf_lb.cli import names
from ebpf_lb.cli.main import main

PATIENCE_S = 60
END = "that-is-all"


@contextmanager
def terminal() -> Iterator[int]:
    """Bash with our completion, at the other end of this descriptor."""
    mine, theirs = pty.openpty()
    folder = Path(sys.executable).parent  # where the command is, beside Python
    environment = {"PATH": f"{folder}:{os.environ['PATH']}", "TERM": "dumb", "PS1": ""}
    bash = subprocess.Popen(
        ["bash", "--norc", "--noprofile", "-i"],
        stdin=theirs, stdout=theirs, stderr=theirs, env=environment, start_new_session=True,
    )  # fmt: skip
    os.close(theirs)
    try:
        os.write(mine, b'eval "$(ebpf-lb completion bash)"; PS1=; echo rea""dy\n')
        read_until(mine, "\nready")
        yield mine
    finally:
        bash.kill()
        bash.wait()
        os.close(mine)


def read_until(terminal: int, text: str) -> str:
    seen, end = "", time.monotonic() + PATIENCE_S
    while text not in seen.replace("\r", ""):
        assert time.monotonic() < end, seen
        if select.select([terminal], [], [], 1)[0]:
            seen += os.read(terminal, 4096).decode()
    return seen.replace("\r", "")


def completed(terminal: int, typed: str, within: str) -> str:
    """What a line has become after a tab; `within`: what must come to be seen."""
    os.write(terminal, typed.encode() + b"\t")
    seen = read_until(terminal, within)
    os.write(terminal, b"\x15")  # away with the line
    return seen


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
def test_bash_completes_what_one_types() -> None:
    with terminal() as one:
        completed(one, "ebpf-lb reas", "ebpf-lb reasons ")
        completed(one, "ebpf-lb reasons no_loc", "NO_LOCAL_ENDPOINTS ")
        completed(one, "ebpf-lb maps dump fronte", "frontends ")
        completed(one, "ebpf-lb lab scenario show cross", "cross-node-snat ")
        completed(one, "ebpf-lb monitor --reason=no_loc", "NO_LOCAL_ENDPOINTS ")


def test_bash_takes_no_colon_for_the_end_of_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names of Services and addresses have some; bash cuts words at them, and replaces what comes
    after the last."""
    script = CliRunner().invoke(main, ["completion", "bash"]).output
    said = "plain,default/web:http\nplain,default/web:https"
    for typed, expected in (
        ("default/web:h", ["http", "https"]),
        ("def", ["default/web:http", "default/web:https"]),
        ("--service=default/web:", ["http", "https"]),
    ):
        line = f"ebpf-lb services {typed}"
        done = subprocess.run(
            ["bash", "--norc", "-c", f"""{script}
compopt() {{ :; }}
ebpf-lb() {{ echo "$COMP_CWORD,$COMP_WORDS" >&3; printf '%s\\n' '{said}'; }}
COMP_LINE='{line}' COMP_POINT={len(line)} COMP_WORDBREAKS=$' \\t\\n=:'
_ebpf_lb_completion ebpf-lb 3>&1
printf '%s\\n' "${{COMPREPLY[@]}}"
"""],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        asked, *found = done.stdout.splitlines()
        assert asked == f"2,{line}"
        assert found == expected


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_is_told_how(shell: str) -> None:
    shown = CliRunner().invoke(main, ["completion", shell])
    assert shown.exit_code == 0
    assert shown.output.startswith("# ")
    assert f"_EBPF_LB_COMPLETE={shell}_complete" in shown.output
    if shutil.which(shell):
        subprocess.run([shell, "-n", "-c", shown.output], check=True)


def test_scenarios_are_named_with_what_they_show() -> None:
    found = names.scenarios(None, None, "etp-local-")  # type: ignore[arg-type]
    assert [one.value for one in found if isinstance(one, CompletionItem)] == ["etp-local-drop"]
    folders = names.scenarios(None, None, "./mine")  # type: ignore[arg-type]
    assert [(one.type, one.value) for one in folders if isinstance(one, CompletionItem)] == [
        ("dir", "./mine")
    ]


def test_colours_are_for_terminals_and_for_who_wants_them() -> None:
    """click takes them out of what is piped; NO_COLOR takes them out everywhere."""
    for variables, expected in ({}, True), ({"NO_COLOR": "1"}, False):
        mine, theirs = pty.openpty()
        environment = {**os.environ, **variables, "COLUMNS": "80"}
        environment.pop("NO_COLOR", None) if not variables else None
        subprocess.run(
            [sys.executable, "-m", "ebpf_lb", "reasons", "NO_ENDPOINTS", "--bpffs", "/nowhere"],
            stdout=theirs, env=environment, check=True,
        )  # fmt: skip
        os.close(theirs)
        shown = os.read(mine, 65536).decode()
        os.close(mine)
        assert ("\033[" in shown) == expected, shown
        assert "NO_ENDPOINTS" in re.sub(r"\033\[[\d;]*m", "", shown)

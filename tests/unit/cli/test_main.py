"""The command line as a whole: what is imported, how errors look."""

import errno
import os
import subprocess
import sys
from typing import Any

import click
import pytest
from click.testing import CliRunner

from ebpf_lb.cli import main as main_module
from ebpf_lb.cli.main import SUBCOMMANDS, main
from ebpf_lb.errors import UserError

HEAVY = {"asyncio", "bcc", "kubernetes", "prometheus_client", "pyroute2", "structlog", "yaml"}


def modules_after(*arguments: str) -> set[str]:
    """What a run of the command has imported at its end."""
    code = (
        "import sys\n"
        "from ebpf_lb.cli.main import main\n"
        f"try: main({list(arguments)!r})\n"
        "except SystemExit: pass\n"
        "print('\\n'.join(sys.modules), file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stderr.split("\n"))


@pytest.mark.parametrize(
    "arguments",
    [("--help",), ("maps", "dump", "--bpffs", "/nonexistent"), ("agent", "--help")],
)
def test_nothing_heavy_is_imported(arguments: tuple[str, ...]) -> None:
    imported = modules_after(*arguments)
    assert "ebpf_lb.cli.main" in imported
    assert not HEAVY & imported


def test_help_names_every_subcommand_and_each_can_be_found() -> None:
    shown = CliRunner().invoke(main, ["--help"]).output
    for name, subcommand in SUBCOMMANDS.items():
        assert subcommand.help in shown
        assert CliRunner().invoke(main, [name, "--help"]).exit_code == 0


def test_an_unknown_subcommand() -> None:
    done = CliRunner().invoke(main, ["mapps"])
    assert done.exit_code == 2
    assert "No such command 'mapps'" in done.output


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs a subcommand that raises something."""

    def call(error: Exception, user: int = 0) -> Any:
        @click.command()
        def broken() -> None:
            raise error

        monkeypatch.setattr(main_module.LazyGroup, "get_command", lambda *_: broken)
        monkeypatch.setattr(os, "geteuid", lambda: user)
        return CliRunner().invoke(main, ["broken"])

    return call


def test_a_users_error_is_one_sentence(failing: Any) -> None:
    done = failing(UserError("The moon is not there: wait."))
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr == "Error: The moon is not there: wait.\n"


def test_missing_rights_are_one_sentence(failing: Any) -> None:
    denied = OSError(errno.EPERM, "Operation not permitted")
    done = failing(denied, user=1000)
    assert done.exit_code == 1
    assert done.stderr == "Error: `main broken` needs root: run it with sudo.\n"
    assert failing(denied, user=0).exception is denied  # root lacks something else: a mistake


def test_other_errors_are_ours_and_not_hidden(failing: Any) -> None:
    assert isinstance(failing(ZeroDivisionError()).exception, ZeroDivisionError)


def test_a_broken_pipe_is_quiet() -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-m", "ebpf_lb", "--help"], stdout=write, stderr=subprocess.PIPE
    )
    os.close(write)
    assert done.returncode == 1
    assert done.stderr == b""

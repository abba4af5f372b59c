"""What the pages for operators tell to type is understood by whom it is typed for, on what is here.

tests/lab/test_documented_commands.py runs those that are for a node, and `make cluster` those for a
cluster.
"""

import re
import shlex
from pathlib import Path

import click
import pytest

from ebpf_lb.cli.main import main
from tests.capabilities import needs
from tests.support.documented import PAGES, commands
from tests.support.tools import PROJECT, TOOLS, tool
from tests.unit.manifests.rendered import ALONE, by_kustomize, named

KUBECTL_VERBS = {"apply", "delete", "label", "logs", "rollout", "exec", "set"}


def resolves(words: list[str]) -> None:
    """Down to the command itself, whose options are then parsed."""
    command: click.Command = main
    context = click.Context(main, info_name="ebpf-lb")
    while isinstance(command, click.Group):
        found = command.get_command(context, words[0])
        assert found is not None, words
        command, words = found, words[1:]
    names = {option for one in command.params for option in one.opts}
    assert all(word in names for word in words if word.startswith("-")), words


@pytest.mark.parametrize("page", PAGES)
def test_a_page_has_commands(page: str) -> None:
    assert commands(page)


@needs(TOOLS)
@pytest.mark.parametrize(
    ("page", "line"), [(page, line) for page in PAGES for line in commands(page)]
)
def test_a_command_is_understood(page: str, line: str) -> None:
    program, *words = shlex.split(line)
    if program == "sudo":
        program, *words = words
    if program == "ebpf-lb":
        resolves(words)
    elif program == "make":
        (target,) = words
        assert re.search(rf"^{target}:", (PROJECT / "Makefile").read_text(), re.M)
    elif program == "helm":
        helm(words)
    elif program == "kubectl":
        kubectl(words)
    elif program == "ctr":
        assert words[:4] == ["-n", "k8s.io", "images", "import"]
        assert f"IMAGE := {words[4]}\n" in (PROJECT / "Makefile").read_text()
    else:
        assert program == "systemctl" and words[-1] == "ebpf-lb"
        assert (PROJECT / "manifests/systemd" / f"{words[-1]}.service").exists()


def helm(words: list[str]) -> None:
    verb, name, *rest = words
    assert name == "ebpf-lb"
    if verb in ("install", "upgrade"):
        chart, *options = rest
        assert Path(chart).parts[0] == "manifests"
        options = [one for one in options if one != "--reuse-values"]
        tool("helm", "template", name, PROJECT / chart, *options)
    else:
        assert verb == "uninstall" and rest == ["--namespace", "kube-system"]


def kubectl(words: list[str]) -> None:
    if words[:2] == ["-n", "kube-system"]:
        words = words[2:]
    verb = words[0]
    assert verb in KUBECTL_VERBS
    tool("kubectl", *[*words[: 2 if verb in ("rollout", "set") else 1], "--help"])
    if "-k" in words:
        folder = words[words.index("-k") + 1]
        assert by_kustomize(str(Path(folder).relative_to("manifests")))
    objects = named(by_kustomize("base")) | named(by_kustomize(ALONE))
    for word in words:
        if word.startswith("daemonset/"):
            assert ("DaemonSet", word.removeprefix("daemonset/")) in objects
    if verb in ("exec", "set"):
        pod = objects["DaemonSet", "ebpf-lb"]["spec"]["template"]["spec"]
        there = {one["name"] for one in pod["containers"] + pod["initContainers"]}
        meant = {word.partition("=")[0] for word in words if "=" in word}
        assert meant | ({words[words.index("-c") + 1]} if "-c" in words else set()) <= there
    if "--" in words:
        program, *inside = words[words.index("--") + 1 :]
        assert program == "ebpf-lb"
        resolves(inside)

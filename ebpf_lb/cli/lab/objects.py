"""`ebpf-lb lab apply | delete | get | scale | pod`."""

import functools
import http.client
import json
from collections.abc import Callable, Sequence
from typing import Any, Concatenate, ParamSpec

import click
import yaml

from ebpf_lb.apiserver.kinds import DEPLOYMENT, KINDS, POD, STATEFUL_SET, Has, Kind, find_kind
from ebpf_lb.cli.lab.common import with_lab
from ebpf_lb.errors import UserError
from ebpf_lb.lab.cluster import Lab
from ebpf_lb.lab.objects.apply import Result, apply_each, delete_each
from ebpf_lb.lab.objects.client import ApiError, Client
from ebpf_lb.lab.objects.manifest import read_manifests
from ebpf_lb.lab.objects.pod_life import PodLife
from ebpf_lb.lab.objects.text import render

P = ParamSpec("P")
Json = dict[str, Any]

_NAMESPACE = click.option(
    "-n", "--namespace", default="default", show_default=True, help="Namespace of the objects."
)
_FILES = click.option(
    "-f",
    "--filename",
    "files",
    multiple=True,
    metavar="FILE",
    help="Manifest: YAML or JSON, a folder, or - for standard input.",
)


def _with_client(command: Callable[Concatenate[Client, P], None]) -> Callable[P, None]:
    """Adds --name; the command gets a client of that lab's API server."""

    @functools.wraps(command)
    def wrapped(lab: Lab, /, *args: P.args, **options: P.kwargs) -> None:
        try:
            command(lab.client, *args, **options)
        except (OSError, http.client.HTTPException) as error:
            raise UserError(
                f"the API server of lab {lab.name!r} does not answer ({error}); "
                f"see {lab.log('apiserver')}"
            ) from error

    return with_lab(wrapped)


def _kind(word: str) -> Kind:
    kind = find_kind(word)
    if kind is None:
        known = ", ".join(dict.fromkeys(kind.plural for kind in KINDS))
        raise UserError(f"the lab has no kind {word!r}; it has {known}")
    return kind


def _names(words: Sequence[str]) -> list[tuple[Kind, str | None]]:
    """`svc web db`, `svc/web deploy/web`, `svc,pods`; a name of None stands for all."""
    if any("/" in word for word in words):
        pairs = [word.partition("/") for word in words]
        if not all(name for _, _, name in pairs):
            raise UserError("write either KIND NAME… or KIND/NAME…, not both")
        return [(_kind(kind), name) for kind, _, name in pairs]
    kinds = [_kind(word) for word in words[0].split(",")]
    if len(words) == 1:
        return [(kind, None) for kind in kinds]
    return [(kind, name) for kind in kinds for name in words[1:]]


@click.command()
@_FILES
@_NAMESPACE
@_with_client
def apply(client: Client, files: tuple[str, ...], namespace: str) -> None:
    """Create or change what manifests describe, as `kubectl apply` does."""
    if not files:
        raise click.UsageError("name the manifests: -f FILE (or -f - for standard input)")
    for result in apply_each(client, read_manifests(files), namespace):
        click.echo(result)


@click.command()
@click.argument("words", metavar="[KIND NAME…]", nargs=-1)
@_FILES
@_NAMESPACE
@_with_client
def delete(client: Client, words: tuple[str, ...], files: tuple[str, ...], namespace: str) -> None:
    """Delete what manifests name, or the objects KIND NAME… (or KIND/NAME…)."""
    if bool(files) == bool(words):
        raise click.UsageError("say what to delete: -f FILE, or KIND NAME…")
    if files:
        for result in delete_each(client, files, namespace):
            click.echo(result)
        return
    for kind, name in _names(words):
        if name is None:
            raise UserError(f"name the {kind.plural} to delete: lab delete {words[0]} NAME…")
        client.delete(kind.path(namespace, name))
        click.echo(Result(kind, namespace, name, "deleted"))


@click.command()
@click.argument("words", metavar="KIND [NAME…]", nargs=-1, required=True)
@_NAMESPACE
@click.option("-A", "--all-namespaces", is_flag=True, help="Objects of every namespace.")
@click.option("-l", "--selector", default="", help="Only objects with these labels: app=web,…")
@click.option(
    "-o",
    "--output",
    type=click.Choice(["table", "wide", "json", "yaml"]),
    default="table",
    show_default=True,
)
@_with_client
def get(
    client: Client,
    words: tuple[str, ...],
    namespace: str,
    all_namespaces: bool,
    selector: str,
    output: str,
) -> None:
    """Show objects. KIND is any of kubectl's names: services, service, svc, …, or all."""
    if words == ("all",):
        wanted: list[tuple[Kind, str | None]] = [
            (kind, None) for kind in KINDS if Has.PLACE_IN_ALL in kind.has
        ]
    else:
        wanted = _names(words)
    if all_namespaces and any(name and kind.namespaced for kind, name in wanted):
        raise UserError("one object has one namespace: use -n instead of -A with a name")
    params = {"labelSelector": selector} if selector else {}
    paths = [
        (kind, kind.path(namespace, name))
        if name
        else (kind, kind.collection_path(None if all_namespaces else namespace))
        for kind, name in wanted
    ]
    if output in ("json", "yaml"):
        answers = [(kind, client.get(path, **params)) for kind, path in paths]
        click.echo(_document(answers, output), nl=False)
        return
    tables: dict[Kind, Json] = {}
    for kind, path in paths:
        answer = client.table(path, **params)
        tables.setdefault(kind, answer | {"rows": []})["rows"] += answer["rows"]
    texts = [
        render(table, namespaces=all_namespaces and kind.namespaced, wide=output == "wide")
        for kind, table in tables.items()
        if table["rows"]
    ]
    if texts:
        click.echo("\n\n".join(texts))
    else:
        where = "" if all_namespaces else f" in namespace {namespace}"
        click.echo(f"No {', '.join(kind.plural for kind in tables)} found{where}.", err=True)


def _document(answers: Sequence[tuple[Kind, Json]], output: str) -> str:
    """One object as it is; several, and lists, as one List."""
    document = answers[0][1]
    if len(answers) > 1 or "items" in document:
        items: list[Json] = []
        for kind, answer in answers:
            head = {"apiVersion": kind.api_version, "kind": kind.name}
            items += [head | item for item in answer.get("items", [answer])]
        document = {"apiVersion": "v1", "kind": "List", "items": items}
    if output == "json":
        return json.dumps(document, indent=2) + "\n"
    return str(yaml.safe_dump(document, sort_keys=False, allow_unicode=True))


@click.command()
@click.argument("name")
@click.argument("replicas", type=click.IntRange(min=0))
@_NAMESPACE
@_with_client
def scale(client: Client, name: str, replicas: int, namespace: str) -> None:
    """Give a Deployment or StatefulSet NAME (or KIND/NAME) another number of pods."""
    word, slash, rest = name.rpartition("/")
    kinds = [_kind(word)] if slash else [DEPLOYMENT, STATEFUL_SET]
    for kind in kinds:
        if Has.SCALE not in kind.has:
            raise UserError(f"{kind.plural} cannot be scaled, only Deployments and StatefulSets")
        path = f"{kind.path(namespace, rest)}/scale"
        try:
            client.patch(path, {"spec": {"replicas": replicas}})
        except ApiError as error:
            if error.status != 404:
                raise
            continue
        click.echo(Result(kind, namespace, rest, "scaled"))
        return
    names = " or ".join(kind.name for kind in kinds)
    raise UserError(
        f"there is no {names} {rest!r} in namespace {namespace!r}: see `ebpf-lb lab get "
        f"{kinds[0].plural}`"
    )


@click.command()
@click.argument("name")
@click.option("--ready", "step", flag_value="ready", help="It takes traffic.")
@click.option("--unready", "step", flag_value="unready", help="It runs, but takes no traffic.")
@click.option(
    "--terminate",
    "step",
    flag_value="terminate",
    help="It is being deleted, but goes on serving until --remove.",
)
@click.option("--remove", "step", flag_value="remove", help="It is gone at once.")
@_NAMESPACE
@_with_client
def pod(client: Client, name: str, step: str | None, namespace: str) -> None:
    """Move a pod through its life; a pod of a Deployment is replaced as in any cluster."""
    life = PodLife(client, namespace, name)
    match step:
        case "ready" | "unready":
            life.set_ready(step == "ready")
        case "terminate":
            life.terminate()
        case "remove":
            life.remove()
        case _:
            raise click.UsageError("say what: --ready, --unready, --terminate or --remove")
    done = {"ready": "ready", "unready": "not ready", "terminate": "terminating", "remove": "gone"}
    click.echo(Result(POD, namespace, name, done[step]))


COMMANDS: tuple[click.Command, ...] = (apply, delete, get, scale, pod)

"""What the commands that list have in common: how a list is wanted, and how it is told."""

import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ebpf_lb.cli import output
from ebpf_lb.cli.choice import families, family_option, must_know
from ebpf_lb.cli.options import bpffs_option

if TYPE_CHECKING:
    from ebpf_lb.datapath.reader import View

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")

_OPTIONS = (
    output.output_option,
    output.limit_option,
    output.wide_option,
    output.watch_option,
    family_option,
    bpffs_option,
)


@dataclass(frozen=True, slots=True)
class Listing:
    """How somebody wants a list."""

    form: str
    limit: int | None
    wide: bool
    watch: bool
    family: str | None
    bpffs: Path

    @property
    def rows(self) -> int | None:
        """How many to show; None for all."""
        return output.rows_wanted(self.limit, self.form)

    def views(self, service: str | None = None) -> "list[View]":
        """Of the families that are asked for. UserError if no Service there is called so."""
        from ebpf_lb.datapath.reader import open_views

        views = open_views(self.bpffs, families(self.family))
        must_know(service, {one.service for view in views for one in view.names.values()})
        return views

    def tell(
        self,
        key: str,
        found: Sequence[T],
        row: Callable[[T], dict[str, Any]],
        columns: Sequence[str],
        line: Callable[[T], list[str]],
        *,
        right: Sequence[str] = (),
        nothing: str,
    ) -> None:
        """As JSON under `key`, or as a table."""
        shown = found[: self.rows]
        if self.form == "json":
            output.say(output.as_json({key: [row(one) for one in shown]}))
        elif not shown:
            output.say(nothing)
        else:
            output.say(
                output.table(columns, [line(one) for one in shown], right=right, wide=self.wide),
                output.more(len(shown), len(found)),
            )

    def repeat(self, show: Callable[[], None]) -> None:
        output.repeat(show, self.watch)


def listing_options(command: F) -> F:
    """-o, --limit, --wide, -w, --family and --bpffs, which the command gets as `listing`."""

    @functools.wraps(command)
    def with_listing(
        *,
        form: str,
        limit: int | None,
        wide: bool,
        watch: bool,
        family: str | None,
        bpffs: Path,
        **others: Any,
    ) -> Any:
        return command(listing=Listing(form, limit, wide, watch, family, bpffs), **others)

    return _with(with_listing, reversed(_OPTIONS))  # type: ignore[return-value]


def _with(command: Callable[..., Any], options: Iterable[Callable[..., Any]]) -> Callable[..., Any]:
    for option in options:
        command = option(command)
    return command

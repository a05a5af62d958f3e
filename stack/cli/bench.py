"""``lamella bench``: what each layer of a stack costs, as bars."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from .common import console, load_or_fail, output_aside
from .trace import request_of

if TYPE_CHECKING:
    from lamella.stack.bench import Timing

__all__ = ["command"]

_WIDTH = 40


@click.command(
    "bench",
    help="Send one request again and again, and show the microseconds that each layer takes. "
    "The app does each time what it does.",
)
@click.argument("stack_file", metavar="STACK_FILE")
@click.argument("path")
@click.option("--profile", "-p", metavar="NAME", help="Apply a profile of the stack file.")
@click.option("--method", "-X", default="GET", show_default=True, help="The request method.")
@click.option("--header", "-H", "headers", multiple=True, metavar="NAME: VALUE", help="A request header.")
@click.option("--data", "-d", default="", help="The request's content; @FILE reads it from a file.")
@click.option(
    "--seconds", default=2.0, show_default=True, type=click.FloatRange(0.01, 600), help="How long to measure."
)
@click.option("--json", "as_json", is_flag=True, help="Print the times as JSON.")
def command_bench(
    stack_file: str,
    path: str,
    profile: str | None,
    method: str,
    headers: tuple[str, ...],
    data: str,
    seconds: float,
    as_json: bool,
) -> None:
    """Load, measure, draw."""
    from lamella.stack.bench import bench

    stack, request = load_or_fail(stack_file, profile), request_of(method, path, headers, data)
    with output_aside(drop=True):  # an access log on standard output would have a line for each request
        timing = bench(stack, request, seconds=seconds)
    if as_json:
        click.echo(json.dumps(timing.as_dict(), indent=2))
    else:
        _draw(f"{method} {path}", timing)


def _draw(what: str, timing: Timing) -> None:
    """A bar for each layer, as long as its time."""
    from rich.table import Table

    longest = max((one.seconds for one in timing.layers), default=0.0) or 1.0
    table = Table(box=None, pad_edge=False, title=f"{what}: {timing.status}", title_justify="left")
    table.add_column("layer")
    table.add_column("us", justify="right")
    table.add_column("x bare", justify="right")
    table.add_column("")
    for one in timing.layers:
        bar = "█" * max(1, round(one.seconds / longest * _WIDTH)) if one.seconds > 0 else ""
        table.add_row(one.id, f"{one.seconds * 1e6:.2f}", f"{one.ratio:.1f}", f"[cyan]{bar}[/]")
    shown = console()
    shown.print(table)
    shown.print(
        f"whole stack {timing.total * 1e6:.2f} us, {timing.total / timing.bare:.1f} times "
        f"a bare application ({timing.bare * 1e6:.2f} us)"
    )


def command(name: str) -> click.Command:
    """Return the command."""
    return command_bench

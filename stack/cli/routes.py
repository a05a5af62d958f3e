"""``lamella routes``: the routing table of every router in the stack."""

from __future__ import annotations

import json

import click

from .common import console, load_or_fail, stack_options

__all__ = ["command"]


@click.command("routes", help="List the routes of every router in the stack, mounts included.")
@stack_options
@click.option("--json", "as_json", is_flag=True, help="Print the table as JSON.")
def command_routes(stack_file: str, profile: str | None, as_json: bool) -> None:
    """Load, list."""
    from rich.table import Table
    from rich.text import Text

    from lamella.stack.routes import routes

    rows = routes(load_or_fail(stack_file, profile))
    if as_json:
        click.echo(json.dumps([row._asdict() for row in rows], indent=2))
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    hosts = any(row.host for row in rows)
    for heading in ("methods", "pattern", "view", *(["host"] if hosts else []), "app"):
        table.add_column(heading, overflow="fold")
    for row in rows:
        cells = [
            Text(" ".join(row.methods) or "any", style="cyan"),
            Text(row.pattern, style="bold"),
            Text(row.endpoint),
            *([Text(row.host, style="yellow")] if hosts else []),
            Text(row.app, style="dim"),
        ]
        table.add_row(*cells)
    console().print(table)


def command(name: str) -> click.Command:
    """Return the command."""
    return command_routes

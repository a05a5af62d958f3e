"""``lamella cors``: what each origin may do, path by path and method by method."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import click

from .common import console, load_or_fail, stack_options

if TYPE_CHECKING:
    from lamella.stack.build import Layer, Stack

__all__ = ["command"]

_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")


@click.command("cors", help="Print the decisions of every cors layer: origin × path × method.")
@stack_options
@click.option(
    "--origin", "-o", "origins", multiple=True, help="An origin to ask for; by default those of the stack file."
)
@click.option("--path", "paths", multiple=True, help="A path to ask for; by default one for each policy.")
@click.option("--json", "as_json", is_flag=True, help="Print the table as JSON.")
def command_cors(
    stack_file: str, profile: str | None, origins: tuple[str, ...], paths: tuple[str, ...], as_json: bool
) -> None:
    """Load, ask, draw."""
    from rich.table import Table
    from rich.text import Text

    rows = decisions(load_or_fail(stack_file, profile), origins, paths)
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    if not rows:
        click.echo(f"{stack_file} has no cors layer", err=True)
        sys.exit(1)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("layer", "origin", "path", *_METHODS):
        table.add_column(heading)
    for row in rows:
        marks = [
            Text("yes", style="green") if row[method] == "allowed" else Text("–", style="red") for method in _METHODS
        ]
        table.add_row(row["layer"], row["origin"], row["path"], *marks)
    console().print(table)


def decisions(stack: Stack, origins: tuple[str, ...], paths: tuple[str, ...]) -> list[dict[str, Any]]:
    """Return one row for each layer, origin and path: a decision for each method."""
    from lamella.middleware.cors import CORSMiddleware

    rows = []
    for sub_stack in stack.walk():
        for layer in sub_stack.layers:
            if layer.factory is not CORSMiddleware:
                continue
            made = CORSMiddleware(_nothing, **layer.options)
            for path in paths or _paths(layer):
                for origin in origins or _origins(layer):
                    decided = {method: made.decide(origin, path, method) for method in _METHODS}
                    rows.append({"layer": layer.full_id, "origin": origin, "path": path, **decided})
    return rows


def _paths(layer: Layer) -> list[str]:
    """A path for each policy, and one for the rest."""
    found = ["/"]
    for policy in layer.options.get("policies", ()):
        found += [pattern.replace("**", "x").replace("*", "x") for pattern in policy["paths"]]
    return found


def _origins(layer: Layer) -> list[str]:
    """An origin for each that the options name, and a stranger."""
    found: list[str] = []
    tables = [layer.options, *layer.options.get("policies", ())]
    for table in tables:
        listed = table.get("origins", ())
        for item in [listed] if isinstance(listed, str) else listed:
            if isinstance(item, str) and item != "*":
                found.append(item.replace("*", "any"))
            elif not isinstance(item, str) and "exact" in item:
                found.append(item["exact"])
            elif not isinstance(item, str) and "suffix" in item:
                port = f":{item['port']}" if "port" in item else ""
                found.append(f"{item.get('scheme', 'https')}://any{item['suffix']}{port}")
    return [*dict.fromkeys(found), "https://stranger.example"]


def _nothing(environ: Any, start_response: Any) -> list[bytes]:
    return []


def command(name: str) -> click.Command:
    """Return the command."""
    return command_cors

"""``lamella conform``: the conformance suite against any middleware."""

from __future__ import annotations

import json
import sys
from typing import Any

import click

from .common import console

__all__ = ["command"]


@click.command(
    "conform",
    help="Run the conformance suite against a middleware: a short name, or module:attribute. "
    "The exit code is 1 where a rule is broken.",
)
@click.argument("factory", metavar="MIDDLEWARE")
@click.option(
    "--option", "-o", "options", multiple=True, metavar="KEY=VALUE", help="An option; the value is JSON or text."
)
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def command_conform(factory: str, options: tuple[str, ...], as_json: bool) -> None:
    """Find, run, show."""
    from lamella.stack.problems import UnresolvedError
    from lamella.stack.references import find_layer
    from lamella.stack.testing.conformance import conformance

    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        found = find_layer(factory)
    except UnresolvedError as error:
        raise click.ClickException(str(error)) from None
    report = conformance(found, **dict(map(_read_option, options)))
    if as_json:
        click.echo(report.to_json())
    else:
        shown = console()
        shown.print(report.table())
        if report.failures:
            shown.print(report.explain(), markup=False)
    sys.exit(1 if report.failures else 0)


def _read_option(text: str) -> tuple[str, Any]:
    """``users={"anna": "…"}``: JSON where it is JSON, else text."""
    name, equals, value = text.partition("=")
    if not equals or not name.isidentifier():
        raise click.ClickException(f"{text!r} is no option: write key=value")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def command(name: str) -> click.Command:
    """Return the command."""
    return command_conform

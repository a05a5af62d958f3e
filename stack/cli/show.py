"""``lamella show``: the pipeline, every option with its origin."""

from __future__ import annotations

import json

import click

from .common import console, load_or_fail, stack_options

__all__ = ["command"]


@click.command("show", help="Draw the pipeline as a tree, every option with its origin; secrets are masked.")
@stack_options
@click.option("--all", "defaults", is_flag=True, help="Show options left at their defaults too.")
@click.option("--json", "as_json", is_flag=True, help="Print the stack as JSON, defaults included.")
def command_show(stack_file: str, profile: str | None, defaults: bool, as_json: bool) -> None:
    """Load and draw."""
    from lamella.stack.show import describe, tree

    stack = load_or_fail(stack_file, profile)
    if as_json:
        click.echo(json.dumps(describe(stack), indent=2))
    else:
        console().print(tree(stack, defaults=defaults))


def command(name: str) -> click.Command:
    """Return the command."""
    return command_show

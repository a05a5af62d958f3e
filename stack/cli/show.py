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
@click.option("--svg", "as_svg", is_flag=True, help="Print the stack as an SVG picture.")
def command_show(stack_file: str, profile: str | None, defaults: bool, as_json: bool, as_svg: bool) -> None:
    """Load and draw."""
    from lamella.stack.picture import svg
    from lamella.stack.show import describe, tree

    stack = load_or_fail(stack_file, profile)
    if as_json:
        click.echo(json.dumps(describe(stack), indent=2))
    elif as_svg:
        click.echo(svg(stack), nl=False)
    else:
        console().print(tree(stack, defaults=defaults))


def command(name: str) -> click.Command:
    """Return the command."""
    return command_show

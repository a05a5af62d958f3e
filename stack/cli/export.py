"""``lamella eject`` and ``lamella schema``: the stack as Python, the stack file's format for editors."""

from __future__ import annotations

import json

import click

from .common import load_or_fail, stack_options

__all__ = ["command"]


@click.command("eject", help="Print the same stack as plain nested Python.")
@stack_options
def command_eject(stack_file: str, profile: str | None) -> None:
    """Load and write."""
    from lamella.stack.eject import eject

    click.echo(eject(load_or_fail(stack_file, profile)), nl=False)


@click.command("schema", help="Print the JSON Schema of a stack file, with every installed layer, for editors.")
def command_schema() -> None:
    """Write it."""
    from lamella.stack.schema import schema

    click.echo(json.dumps(schema(), indent=2, ensure_ascii=False))


_COMMANDS: dict[str, click.Command] = {"eject": command_eject, "schema": command_schema}


def command(name: str) -> click.Command:
    """Return one of the commands."""
    return _COMMANDS[name]

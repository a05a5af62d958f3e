"""The command line: ``lamella …``.

Each command lives in a module of its own, imported when it is called, so that ``lamella --help``
starts fast and a missing extra of one command does not hinder another.
"""

from __future__ import annotations

import sys
from importlib import import_module

import click

from lamella.stack.kernel.errors import LamellaError

__all__ = ["command_line", "main"]

#: Command: the module that holds it, and its line in the overview.
COMMANDS = {
    "run": ("run", "Serve a stack file."),
    "check": ("check", "Check a stack file completely, without serving it."),
    "show": ("show", "Draw the pipeline, every option with its origin."),
    "trace": ("trace", "Send one request through the stack, layer by layer."),
    "headers": ("trace", "Print which layer sets which header, for every kind of answer."),
    "bench": ("bench", "Measure what each layer costs."),
    "audit": ("audit", "List who may ask for what."),
    "routes": ("routes", "List the routes of every router in the stack."),
    "cors": ("cors", "Print what each origin may do."),
    "conform": ("conform", "Run the conformance suite against a middleware."),
    "secret": ("secrets", "Write a new random secret to a file."),
    "passwd": ("audit", "Set a password in an htpasswd file."),
    "session": ("secrets", "Look after a store of sessions: purge, count, show."),
    "compress": ("static", "Write compressed siblings of files."),
    "static": ("static", "Prepare static files: build hashed copies."),
    "schema": ("export", "Print the JSON Schema of a stack file."),
    "eject": ("export", "Print the same stack as plain Python."),
    "new": ("new", "Start a new project."),
}


class _Commands(click.Group):
    """Imports a command when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = import_module(f"lamella.stack.cli.{COMMANDS[cmd_name][0]}").command(cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0] if args else ""
        if name and name not in COMMANDS and not name.startswith("-"):
            from difflib import get_close_matches

            near = get_close_matches(name, COMMANDS, 1)
            ctx.fail(f"no command {name!r}" + (f"; did you mean {near[0]!r}?" if near else ""))
        return super().resolve_command(ctx, args)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(None, "-V", "--version", package_name="lamella")
def _lamella() -> None:
    """A WSGI stack you can read, check, test and trace, one layer at a time."""


def command_line() -> click.Group:
    """Return the whole command line as a click group."""
    return _lamella


def main(args: list[str] | None = None) -> None:
    """Run the command line; every error that is ours is one line, never a traceback."""
    try:
        _lamella(args, prog_name="lamella")
    except LamellaError as error:
        click.echo(f"lamella: {error}", err=True)
        sys.exit(1)
    except BrokenPipeError:
        sys.stderr.close()  # `lamella show | head`: the reader has what it wanted
        sys.exit(0)

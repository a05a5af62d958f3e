"""``lamella secret`` and ``lamella session``: what operators do with secrets and stores."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime

import click

from .common import console

__all__ = ["command"]


@click.command("secret", help="Write a new random secret to FILE (mode 0600). A file that exists is never overwritten.")
@click.argument("file", type=click.Path())
def command_secret(file: str) -> None:
    """Create, and say how to use it."""
    from lamella.stack.session_tools import create_secret

    path = create_secret(file)
    click.echo(f'{path}: written. In the stack file: secret = {{ file = "{path}" }}')


@click.group("session", help="Look after a store of sessions.")
def command_session() -> None:
    """Group of three."""


_store = click.argument("store", metavar="STORE")


@command_session.command("purge", help="Remove expired sessions from STORE, the url of a session layer.")
@_store
def purge(store: str) -> None:
    """Say how many went."""
    from lamella.stack.session_tools import purge as purge_store

    removed = purge_store(store)
    click.echo(f"{removed} expired session{'s' * (removed != 1)} removed")


@command_session.command("count", help="Count the living sessions of STORE.")
@_store
def count(store: str) -> None:
    """Say how many there are."""
    from lamella.stack.session_tools import count as count_sessions

    click.echo(count_sessions(store))


@command_session.command("show", help="Show one session of STORE: by its cookie's value, its id, or its record's name.")
@_store
@click.argument("session")
def show(store: str, session: str) -> None:
    """Print it as JSON."""
    from lamella.stack.session_tools import show as show_session

    found = show_session(store, session)
    if found is None:
        click.echo("there is no such session", err=True)
        sys.exit(1)
    for name in ("created", "expires"):
        if isinstance(found[name], (int, float)):
            found[name] = datetime.fromtimestamp(float(str(found[name])), UTC).isoformat()
    console().print_json(json.dumps(found))


_COMMANDS: dict[str, click.Command] = {"secret": command_secret, "session": command_session}


def command(name: str) -> click.Command:
    """Return one of the commands."""
    return _COMMANDS[name]

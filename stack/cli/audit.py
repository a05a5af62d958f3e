"""``lamella audit`` and ``lamella passwd``: who may ask for what, and the users' file."""

from __future__ import annotations

import json
import sys

import click

from .common import console, load_or_fail, stack_options

__all__ = ["command"]


@click.command("audit", help="List mount × route × rule: who may ask for what, and what is reachable without a login.")
@stack_options
@click.option(
    "--open", "only_open", is_flag=True, help="Only what is reachable without a login; exit code 1 if anything is."
)
@click.option("--json", "as_json", is_flag=True, help="Print the table as JSON.")
def command_audit(stack_file: str, profile: str | None, only_open: bool, as_json: bool) -> None:
    """Load, audit, draw."""
    from rich.table import Table
    from rich.text import Text

    from lamella.stack.audit import CONCERNS, audit

    found = audit(load_or_fail(stack_file, profile))
    rows = found.open if only_open else found.rows
    if as_json:
        click.echo(json.dumps([row._asdict() for row in rows], indent=2))
        sys.exit(1 if only_open and rows else 0)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("who", "methods", "route", "auth", "rule", *CONCERNS):
        table.add_column(heading.replace("_", " "), overflow="fold")
    for row in rows:
        covered = [Text("yes", style="green") if row.covered[name] else Text("–", style="dim") for name in CONCERNS]
        table.add_row(
            Text(row.allow, style="yellow" if row.is_open else "green"),
            Text(" ".join(row.methods) or "any"),
            Text(row.host + row.pattern, style="bold"),
            Text(" ".join(row.auth) or "–"),
            Text(row.rule or "–", style="dim"),
            *covered,
        )
    shown = console()
    shown.print(table)
    shown.print(f"\n{len(found.open)} of {len(found.rows)} reachable without a login", style="bold")
    sys.exit(1 if only_open and rows else 0)


@click.command("passwd", help="Set the password of USER in an htpasswd FILE, which is made where it is missing.")
@click.argument("file", type=click.Path())
@click.argument("user", required=False)
@click.option(
    "--scheme", type=click.Choice(["argon2id", "bcrypt", "sha512"]), help="By default the best that is installed."
)
@click.option("--stdin", "from_stdin", is_flag=True, help="Read the password from the first line of standard input.")
@click.option("--delete", is_flag=True, help="Remove the user.")
@click.option("--list", "listed", is_flag=True, help="Print the names of all users.")
def command_passwd(
    file: str, user: str | None, scheme: str | None, from_stdin: bool, delete: bool, listed: bool
) -> None:
    """Ask twice, write once; the password is never shown."""
    from lamella.stack.password_tools import delete_user, list_users, set_password

    if listed:
        click.echo("\n".join(list_users(file)))
        return
    if user is None:
        raise click.UsageError("name a USER")
    if delete:
        if not delete_user(file, user):
            raise click.ClickException(f"{file} has no user {user!r}")
        click.echo(f"{file}: removed {user}")
        return
    if from_stdin:
        password = sys.stdin.readline().rstrip("\r\n")
    else:
        password = click.prompt("Password", hide_input=True, confirmation_prompt=True)
    is_new = set_password(file, user, password, scheme=scheme)
    click.echo(f"{file}: {'added' if is_new else 'changed the password of'} {user}")


_COMMANDS: dict[str, click.Command] = {"audit": command_audit, "passwd": command_passwd}


def command(name: str) -> click.Command:
    """Return one of the commands."""
    return _COMMANDS[name]

"""``lamella trace`` and ``lamella headers``: what each layer does to a request, and to every kind of answer."""

from __future__ import annotations

import sys
from typing import Any

import click

from .common import console, load_or_fail, output_aside, stack_options

__all__ = ["command", "request_of"]


@click.command("trace", help="Send one request through the stack, and show what each layer does to it.")
@click.argument("method")
@click.argument("path")
@stack_options
@click.option("--header", "-H", "headers", multiple=True, metavar="NAME: VALUE", help="A request header.")
@click.option("--data", "-d", default="", help="The request's content; @FILE reads it from a file.")
@click.option("--blocks", type=click.IntRange(0), help="Leave after so many blocks, as a client that goes away.")
@click.option("--json", "as_json", is_flag=True, help="Print the trace as JSON.")
@click.option("--html", "as_html", is_flag=True, help="Print the trace as a page.")
def command_trace(
    method: str,
    path: str,
    stack_file: str,
    profile: str | None,
    headers: tuple[str, ...],
    data: str,
    blocks: int | None,
    as_json: bool,
    as_html: bool,
) -> None:
    """Load, send, show; exit code 1 where an exception reached the server."""
    from lamella.stack.trace import trace

    stack, request = load_or_fail(stack_file, profile), request_of(method, path, headers, data)
    with output_aside():
        traced = trace(stack, request, blocks=blocks)
    if as_json:
        click.echo(traced.to_json())
    elif as_html:
        click.echo(traced.html())
    elif console().is_terminal:
        console().print(traced.tree())
    else:
        click.echo(traced.text())
    sys.exit(1 if traced.error is not None else 0)


@click.command("headers", help="Print which layer sets, changes or removes which header, for every kind of answer.")
@stack_options
@click.option("--path", default="/", show_default=True, help="A path that reaches the app.")
@click.option("--header", "-H", "headers", multiple=True, metavar="NAME: VALUE", help="A request header.")
@click.option("--json", "as_json", is_flag=True, help="Print the matrix as JSON.")
def command_headers(stack_file: str, profile: str | None, path: str, headers: tuple[str, ...], as_json: bool) -> None:
    """Load, try, print: as a table on a terminal, as tab-separated text for a diff."""
    from lamella.stack.headers import header_matrix

    stack = load_or_fail(stack_file, profile)
    with output_aside(drop=True):
        matrix = header_matrix(stack, path=path, headers=dict(map(_header, headers)))
    if as_json:
        click.echo(matrix.to_json())
    elif console().is_terminal:
        console().print(matrix.table())
    else:
        click.echo(matrix.text())


def request_of(method: str, path: str, headers: tuple[str, ...], data: str) -> dict[str, Any]:
    """The environ of the request."""
    from lamella.stack.kernel.http import is_token
    from lamella.stack.testing import environ

    if not is_token(method):
        raise click.BadParameter(f"{method!r} is no method")
    if not path.startswith("/"):
        raise click.BadParameter(f"{path!r} is no path: it starts with a slash")
    try:
        content = open(data[1:], "rb").read() if data.startswith("@") else data.encode()  # noqa: SIM115
    except OSError as error:
        raise click.ClickException(f"{data[1:]}: {error.strerror}") from None
    named: dict[str, Any] = dict(map(_header, headers))
    if content and "content_type" not in named:
        named["content_type"] = "application/x-www-form-urlencoded"
    return environ(method, path, body=content, **named)


def _header(text: str) -> tuple[str, str]:
    """``Name: value``, as the name that the environ builder takes."""
    from lamella.stack.kernel.http import is_field_value, is_token

    name, colon, value = text.partition(":")
    if not colon or not is_token(name) or not is_field_value(value):
        raise click.BadParameter(f'{text!r} is no header: write "Name: value"')
    return name.lower().replace("-", "_"), value.strip()


_COMMANDS: dict[str, click.Command] = {"trace": command_trace, "headers": command_headers}


def command(name: str) -> click.Command:
    """Return one of the commands."""
    return _COMMANDS[name]

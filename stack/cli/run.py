"""``lamella run``: serve a stack file."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

import click

from .common import console, fail, load_or_fail, stack_options

if TYPE_CHECKING:
    import socket
    from collections.abc import Sequence

    from lamella.stack.build import Stack

__all__ = ["command"]

_ADDRESS = "127.0.0.1:8080"
# Here and not imported, so that `lamella run --help` stays fast; a test compares it with stack/servers.py.
SERVERS = ("waitress", "gunicorn", "gevent", "granian", "uwsgi", "cheroot", "wsgiref", "uvicorn")


@click.command("run", help="Serve a stack file (default: stack.toml), with waitress or another server.")
@stack_options
@click.option("--server", "-s", default="waitress", show_default=True, type=click.Choice(SERVERS), help="What serves.")
@click.option("--bind", "-b", "binds", multiple=True, metavar="ADDRESS", help="host:port, unix:/path or fd://N.")
@click.option("--workers", "-w", default=1, show_default=True, type=click.IntRange(1, 512), help="Processes.")
@click.option(
    "--threads",
    default=8,
    show_default=True,
    type=click.IntRange(1, 512),
    help="Requests that each process handles at a time.",
)
@click.option("--reload", is_flag=True, help="Take changes over once they are sound; until then the old stack serves.")
def command_run(
    stack_file: str,
    profile: str | None,
    server: str,
    binds: tuple[str, ...],
    workers: int,
    threads: int,
    reload: bool,
) -> None:
    """Build, listen, serve."""
    from lamella.stack.servers import find, several_processes

    binds = binds or (_ADDRESS,)
    if reload and server != "waitress":
        raise click.UsageError(f"--reload works with waitress; {server} cannot hand its connections over")
    found = find(server, workers=workers, binds=binds)
    if reload:
        _reload(stack_file, profile, binds, threads)
        return
    began = time.perf_counter()
    stack = load_or_fail(stack_file, profile)
    problems = several_processes(stack, workers)
    if problems:
        fail(problems)
    took = (time.perf_counter() - began) * 1000
    shown = console(stderr=True)
    for note in found.notes:
        shown.print(f"{server}: {note}", style="yellow", markup=False)
    if server in ("waitress", "cheroot", "wsgiref"):
        _serve_here(server, stack, stack_file, binds, threads, took)
    else:
        _become(server, stack_file, profile, binds, workers, threads)


def _reload(stack_file: str, profile: str | None, binds: Sequence[str], threads: int) -> None:
    """Serve with waitress in a process that is replaced whenever a file changes."""
    from lamella.stack.reload import Supervisor
    from lamella.stack.serve import listen, shown_address

    shown = console(stderr=True)
    sockets = [listen(bind) for bind in binds]
    addresses = "  ".join(f"[bold]{shown_address(listening)}[/]" for listening in sockets)
    shown.print(f"[green]lamella[/] {stack_file} at {addresses} · watching for changes · Ctrl+C stops")
    styles = {"good": "green", "bad": "red", "": "dim"}
    Supervisor(
        stack_file,
        sockets,
        profile=profile,
        threads=threads,
        say=lambda line, kind: shown.print(line, style=styles[kind], markup=False),
    ).run()


def _serve_here(server: str, stack: Stack, stack_file: str, binds: Sequence[str], threads: int, took: float) -> None:
    """Serve in this process."""
    from lamella.stack.serve import listen, serve, shown_address

    shown = console(stderr=True)

    def ready(*sockets: socket.socket) -> None:
        addresses = "  ".join(f"[bold]{shown_address(listening)}[/]" for listening in sockets)
        with_server = "" if server == "waitress" else f" · {server}"
        shown.print(
            f"[green]lamella[/] {stack_file}: {len(stack.layers)} layers built in {took:.0f} ms{with_server}"
            f" · {addresses} · Ctrl+C stops"
        )

    if server == "wsgiref":
        from lamella.stack.servers import serve_wsgiref

        serve_wsgiref(stack, binds[0], ready=ready)
    elif server == "cheroot":
        from lamella.stack.servers import serve_cheroot

        serve_cheroot(stack, binds[0], threads=threads, ready=ready)
    else:
        sockets = [listen(bind) for bind in binds]
        serve(stack, sockets, threads=threads, ready=lambda: ready(*sockets))
    sys.stdout.flush()


def _become(
    server: str, stack_file: str, profile: str | None, binds: Sequence[str], workers: int, threads: int
) -> None:
    """Show the command of a server, and let this process be it."""
    from lamella.stack.servers import command as server_command

    made = server_command(server, stack_file, profile=profile, binds=binds, workers=workers, threads=threads)
    console(stderr=True).print(f"$ {made}", style="bold", markup=False)
    made.become()


def command(name: str) -> click.Command:
    """Return the command."""
    return command_run

"""``lamella run``: serve a stack file."""

from __future__ import annotations

import sys
import time

import click

from .common import check_or_fail, console, stack_options

__all__ = ["command"]


@click.command("run", help="Serve a stack file (default: stack.toml), with waitress.")
@stack_options
@click.option("--bind", "-b", "binds", multiple=True, metavar="ADDRESS", help="host:port, unix:/path or fd://N.")
@click.option(
    "--threads", default=8, show_default=True, type=click.IntRange(1, 512), help="Requests handled at a time."
)
@click.option("--reload", is_flag=True, help="Take changes over once they are sound; until then the old stack serves.")
def command_run(stack_file: str, profile: str | None, binds: tuple[str, ...], threads: int, reload: bool) -> None:
    """Build, listen, serve."""
    from lamella.stack.serve import listen, serve, shown_address

    shown = console(stderr=True)
    began = time.perf_counter()
    stack = None if reload else check_or_fail(stack_file, profile)
    sockets = [listen(bind) for bind in binds or ("127.0.0.1:8080",)]
    addresses = "  ".join(f"[bold]{shown_address(listening)}[/]" for listening in sockets)
    if stack is None:
        from lamella.stack.reload import Supervisor

        shown.print(f"[green]lamella[/] {stack_file} at {addresses} · watching for changes · Ctrl+C stops")
        styles = {"good": "green", "bad": "red", "": "dim"}
        Supervisor(
            stack_file,
            sockets,
            profile=profile,
            threads=threads,
            say=lambda line, kind: shown.print(line, style=styles[kind], markup=False),
        ).run()
        return
    count = len(stack.layers)
    took = (time.perf_counter() - began) * 1000
    serve(
        stack,
        sockets,
        threads=threads,
        ready=lambda: shown.print(
            f"[green]lamella[/] {stack_file}: {count} layers built in {took:.0f} ms · {addresses} · Ctrl+C stops"
        ),
    )
    sys.stdout.flush()


def command(name: str) -> click.Command:
    """Return the command."""
    return command_run

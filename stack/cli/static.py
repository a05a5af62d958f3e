"""``lamella compress DIR`` and ``lamella static build SRC DEST``: files made ready before they are served."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from .common import console

if TYPE_CHECKING:
    from lamella.stack.static_tools import Built, Compressed, Progress

__all__ = ["command"]


@click.command(
    "compress", help="Write compressed siblings (app.css.br) of the files below FOLDER, where they are smaller."
)
@click.argument("folder", type=click.Path(file_okay=False))
@click.option(
    "--encoding", "-e", "encodings", multiple=True, type=click.Choice(["zstd", "br", "gzip"]), help="Default: all."
)
@click.option("--min-size", default=200, show_default=True, help="Leave files below so many bytes alone.")
@click.option("--force", is_flag=True, help="Compress again what is up to date.")
def command_compress(folder: str, encodings: tuple[str, ...], min_size: int, force: bool) -> None:
    """Compress, with a bar, and tell what was won."""
    from lamella.stack.static_tools import compress_folder, progress_bar

    results: list[Compressed] = []

    def run(progress: Progress) -> None:
        results.extend(
            compress_folder(
                folder,
                encodings=encodings or ("zstd", "br", "gzip"),
                min_size=min_size,
                force=force,
                progress=progress,
            )
        )

    progress_bar("compressing", run)
    written = [result for result in results if result.siblings and not result.unchanged]
    current = sum(result.unchanged for result in results)
    plain = sum(result.size for result in written)
    best = sum(min(result.siblings.values()) for result in written)
    told = f"[green]{len(written)}[/] of {len(results)} files compressed, {current} up to date"
    console().print(told + (f": {_size(plain)} → {_size(best)} at best" if written else ""))


def _size(octets: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if octets < 1000 or unit == "GB":
            return f"{octets:.0f} {unit}" if unit == "B" else f"{octets:.1f} {unit}"
        octets /= 1000
    return ""


@click.group("static", help="Prepare static files.")
def command_static() -> None:
    """Group of one."""


@command_static.command("build", help="Copy the files of SOURCE to DESTINATION under hashed names, with a manifest.")
@click.argument("source", type=click.Path(file_okay=False))
@click.argument("destination", type=click.Path(file_okay=False))
@click.option("--prefix", help="Where the files are served: references that begin with it are rewritten too.")
@click.option("--only-hashed", is_flag=True, help="Leave out the copies under plain names.")
@click.option("--strict", is_flag=True, help="A reference that leads to no file is an error.")
def build(source: str, destination: str, prefix: str | None, only_hashed: bool, strict: bool) -> None:
    """Build, with a bar."""
    from lamella.stack.static_tools import build_static, progress_bar

    built: list[Built] = []
    progress_bar(
        "building",
        lambda progress: built.append(
            build_static(
                source, destination, prefix=prefix, keep_plain=not only_hashed, strict=strict, progress=progress
            )
        ),
    )
    shown = console(stderr=True)
    for name, target in built[0].missing:
        shown.print(f"[yellow]{name}[/] refers to {target}, which is no file")
    console().print(f"[green]{len(built[0].files)}[/] files, manifest {built[0].manifest}")


_COMMANDS: dict[str, click.Command] = {"compress": command_compress, "static": command_static}


def command(name: str) -> click.Command:
    """Return one of the commands."""
    return _COMMANDS[name]

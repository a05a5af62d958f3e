"""What the commands share: the console, problems, the folder of the stack file on the path."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click

from lamella.stack.problems import Problem, StackFileError

if TYPE_CHECKING:
    from rich.console import Console

    from lamella.stack.build import Stack

__all__ = [
    "add_folder_to_path",
    "check_or_fail",
    "console",
    "fail",
    "load_or_fail",
    "output_aside",
    "show_problems",
    "stack_argument",
    "stack_options",
]

F = TypeVar("F", bound=Callable[..., Any])


def console(*, stderr: bool = False) -> Console:
    """Return a console that is coloured on a terminal and plain in a pipe."""
    from rich.console import Console

    shown = Console(stderr=stderr, highlight=False, soft_wrap=True)
    if not shown.is_terminal:
        shown = Console(stderr=stderr, highlight=False, soft_wrap=True, no_color=True, width=10_000)
    return shown


def add_folder_to_path(stack_file: str | Path) -> None:
    """Let ``use = "app:application"`` find ``app.py`` beside the stack file."""
    folder = str(Path(stack_file).resolve().parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)


def stack_argument(function: F) -> F:
    """Add the argument ``[STACK_FILE]``."""
    return click.argument("stack_file", default="stack.toml", metavar="[STACK_FILE]")(function)


def stack_options(function: F) -> F:
    """Add ``[STACK_FILE]`` and ``--profile``."""
    option = click.option("--profile", "-p", metavar="NAME", help="Apply a profile of the stack file.")
    return stack_argument(option(function))


@contextmanager
def output_aside(*, drop: bool = False) -> Iterator[None]:
    """Keep what layers write to standard output (the access log) out of a command's own output.

    Args:
        drop: Drop it, and log records too; otherwise it goes to standard error.
    """
    import logging

    sys.stdout.flush()
    kept = os.dup(1)
    other = os.open(os.devnull, os.O_WRONLY) if drop else os.dup(2)
    os.dup2(other, 1)
    disabled = logging.root.manager.disable
    if drop:
        logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(disabled)
        os.dup2(kept, 1)
        os.close(kept)
        os.close(other)


def show_problems(problems: Iterable[Problem]) -> None:
    """Print each problem on one line, on standard error."""
    from rich.text import Text

    shown = console(stderr=True)
    for problem in problems:
        line = Text(f"{problem.file}:{problem.line}:{problem.column}: ", style="bold")
        kind = ("warning: ", "yellow") if problem.warning else ("", "red")
        line.append(kind[0] + problem.message, style=kind[1])
        shown.print(line)


def fail(problems: Iterable[Problem]) -> NoReturn:
    """Print the problems and end with the exit code of the earliest phase among them."""
    problems = list(problems)
    show_problems(problems)
    sys.exit(min((problem.exit_code for problem in problems if not problem.warning), default=1))


def check_or_fail(stack_file: str, profile: str | None) -> Stack:
    """Check a stack file, order rules among it, and build it; print the problems, and end where one is an error."""
    from lamella.stack.check import check

    add_folder_to_path(stack_file)
    report = check(stack_file, profile, expectations=False)
    if report.stack is None or report.errors:
        fail(report.problems)
    show_problems(report.problems)
    return report.stack


def load_or_fail(stack_file: str, profile: str | None) -> Stack:
    """Load a stack file; print its problems and end where it has any."""
    from lamella.stack.build import load

    add_folder_to_path(stack_file)
    try:
        return load(stack_file, profile=profile)
    except StackFileError as error:
        fail(error.problems)

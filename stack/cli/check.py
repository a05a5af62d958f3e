"""``lamella check``: everything that can be known before a stack is served."""

from __future__ import annotations

import json
import sys

import click

from .common import add_folder_to_path, console, output_aside, show_problems, stack_options

__all__ = ["command"]


@click.command(
    "check",
    help="Check a stack file: syntax, types, references, order, build, expectations. "
    "The exit code, 2 to 7, names the first of these in which something is wrong.",
)
@stack_options
@click.option("--json", "as_json", is_flag=True, help="Print the problems as JSON.")
@click.option(
    "--workers", default=1, metavar="N", type=click.IntRange(1, 512), help="Check for so many processes, too."
)
@click.option("--no-apps", is_flag=True, help="Do not import the applications, and run no expectation.")
@click.option("--budget", is_flag=True, help="Measure the layers that [budget] names, too.")
def command_check(
    stack_file: str, profile: str | None, as_json: bool, workers: int, no_apps: bool, budget: bool
) -> None:
    """Check, show, exit."""
    from lamella.stack.check import check

    add_folder_to_path(stack_file)
    with output_aside(drop=True):
        report = check(stack_file, profile, import_apps=not no_apps, workers=workers)
        if budget and not no_apps and report.stack is not None and not report.errors:
            from lamella.stack.bench import check_budget

            report.problems += check_budget(report.stack)
    if as_json:
        problems = [problem.as_dict() for problem in report.problems]
        click.echo(json.dumps({"exit_code": report.exit_code, "problems": problems}, indent=2))
        sys.exit(report.exit_code)
    show_problems(report.problems)
    if report.stack is not None and report.exit_code == 0:
        layers = sum(len(stack.layers) for stack in report.stack.walk())
        counts = [f"{layers} layer{'s' * (layers != 1)}"]
        if report.stack.expects and not no_apps:
            counts.append(f"{len(report.stack.expects)} expectations met")
        if report.warnings:
            counts.append(f"{len(report.warnings)} warning{'s' * (len(report.warnings) != 1)}")
        console().print(f"[green]{stack_file}[/]: " + ", ".join(counts))
    sys.exit(report.exit_code)


def command(name: str) -> click.Command:
    """Return the command."""
    return command_check

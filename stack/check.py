"""Check a stack file in phases, and report everything.

The phases are syntax, shape and types, references, order rules, build, expectations; the
exit code, 2 to 7 in that order, is that of the first phase in which something is wrong.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

from lamella.stack.problems import Problem, StackFileError, sort_problems

if TYPE_CHECKING:
    from lamella.stack.build import Stack

__all__ = ["Report", "check"]

#: Modules that plug in, each with its function: ``check_order(stack)``, ``check_traps(stack)`` and
#: ``run_expectations(stack)`` return the problems they found in a described, or in a built, stack.
_ORDER = ("lamella.stack.order", "check_order")
_TRAPS = ("lamella.stack.traps", "check_traps")
_EXPECTATIONS = ("lamella.stack.expect", "run_expectations")


class Report:
    """What ``lamella check`` has to say.

    Args:
        problems: Errors and warnings, by place.
        stack: The built stack; None where an error keeps it from running.
    """

    __slots__ = ("problems", "stack")

    def __init__(self, problems: list[Problem], stack: Stack | None) -> None:
        self.problems = problems
        self.stack = stack

    @property
    def errors(self) -> list[Problem]:
        """The problems that are no warnings."""
        return [one for one in self.problems if not one.warning]

    @property
    def warnings(self) -> list[Problem]:
        """The problems that do not keep the stack from running."""
        return [one for one in self.problems if one.warning]

    @property
    def exit_code(self) -> int:
        """0, or that of the first phase in which there is an error."""
        return min((one.exit_code for one in self.errors), default=0)


def check(
    path: str | os.PathLike[str],
    profile: str | None = None,
    *,
    import_apps: bool = True,
    expectations: bool = True,
    workers: int = 1,
) -> Report:
    """Check a stack file; nothing is raised.

    Args:
        path: The stack file.
        profile: Name of one of its profiles.
        import_apps: Import the apps, also those that a layer would import with the first
            request. Without, a stand-in takes the place of each and no expectation is run.
        expectations: Run the ``[[expect]]`` statements, if nothing else is wrong.
        workers: How many processes are to serve it; some layers work in one only.
    """
    from lamella.stack.loader import Loader

    try:
        loader = Loader(os.fspath(path), profile, import_apps=import_apps, check_apps=True)
    except StackFileError as error:
        return Report(list(error.problems), None)
    loader.describe()
    problems = []
    if not loader.errors:
        problems += _plugged(_ORDER, loader.stack)
    loader.build()
    if workers > 1 and loader.stack is not None and not loader.errors:
        from lamella.stack.servers import several_processes

        problems += several_processes(loader.stack, workers)
    if import_apps and not loader.errors:
        problems += _plugged(_TRAPS, loader.stack, workers=workers if workers > 1 else None)
    if expectations and import_apps and not loader.errors and not any(not one.warning for one in problems):
        problems += _plugged(_EXPECTATIONS, loader.stack)
    problems = sort_problems([*loader.problems, *problems])
    broken = any(not one.warning and one.phase not in ("order", "expectations") for one in problems)
    return Report(problems, None if broken else loader.stack)


def _plugged(where: tuple[str, str], stack: Any, **more: Any) -> list[Problem]:
    """Call the function of a module that may not be installed."""
    module_name, function = where
    try:
        module = import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name != module_name:
            raise
        return []
    return list(getattr(module, function)(stack, **more))

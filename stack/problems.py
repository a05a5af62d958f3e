"""What is wrong with a stack file: one located line for each mistake."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from lamella.stack.kernel.errors import LamellaError

__all__ = ["PHASES", "Problem", "StackFileError", "UnresolvedError", "did_you_mean", "sort_problems"]

#: The phases of ``lamella check``, each with its exit code.
PHASES = {"syntax": 2, "types": 3, "references": 4, "order": 5, "build": 6, "expectations": 7}


class Problem:
    """One mistake, where it is, and what to do.

    Args:
        file: Path of the stack file, as it was given.
        line: Counted from 1.
        column: Counted from 1, in characters.
        message: One line.
        phase: A key of :data:`PHASES`.
        warning: The stack runs all the same.
        rule: Code of an order rule, such as ``L104``; else empty.
    """

    __slots__ = ("column", "file", "line", "message", "phase", "rule", "warning")

    def __init__(
        self,
        file: str,
        line: int,
        column: int,
        message: str,
        *,
        phase: str = "types",
        warning: bool = False,
        rule: str = "",
    ) -> None:
        self.file = file
        self.line = line
        self.column = column
        self.message = " ".join(message.split())
        self.phase = phase
        self.warning = warning
        self.rule = rule

    @property
    def exit_code(self) -> int:
        """What ``lamella check`` exits with for this problem; 0 for a warning."""
        return 0 if self.warning else PHASES[self.phase]

    def as_dict(self) -> dict[str, Any]:
        """Return the problem for ``--json``."""
        return {name: getattr(self, name) for name in ("file", "line", "column", "message", "phase", "rule", "warning")}

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}: {self.message}"

    def __repr__(self) -> str:
        return f"<Problem {self}>"


class StackFileError(LamellaError, ValueError):
    """A stack file cannot be used.

    Args:
        problems: Every mistake that was found; the text of the error has one line for each.
    """

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__(self.problems)

    def __str__(self) -> str:
        return "\n".join(map(str, self.problems))


class UnresolvedError(LamellaError, LookupError):
    """A ``use`` names something that cannot be found or imported."""


def did_you_mean(word: str, known: Iterable[str], cutoff: float = 0.6) -> str:
    """Return ``" (did you mean …?)"``, or nothing where no known word is near."""
    from difflib import get_close_matches

    names = sorted(set(known))
    near = get_close_matches(word, names, 1, cutoff) or [
        name for name in names if name.lower().replace("-", "_") == word.lower().replace("-", "_")
    ]
    return f" (did you mean `{near[0]}`?)" if near else ""


def sort_problems(problems: Iterable[Problem]) -> list[Problem]:
    """Return *problems* by file and position, equal ones once."""
    unique = {(one.file, one.line, one.column, one.message): one for one in problems}
    return [unique[key] for key in sorted(unique)]

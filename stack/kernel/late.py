"""Regular expressions and loggers that are made when they are first used."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from logging import Logger

__all__ = ["late_logger", "late_pattern"]


def late_pattern(pattern: str, flags: int = 0) -> re.Pattern[str]:
    """Return what ``re.compile`` would, compiled on its first use.

    For what a stack without mistakes may never ask: each compilation holds an import up by 0.1 to
    1 ms, and a start of six layers had 14 ms of them. A pattern of the plain request is better compiled
    at once: to look a method up here costs 30 ns more.

    Args:
        pattern: The regular expression.
        flags: As ``re.compile`` takes them.
    """
    return cast("re.Pattern[str]", _Late(lambda: re.compile(pattern, flags)))


def late_logger(name: str) -> Logger:
    """Return what ``logging.getLogger`` would; :mod:`logging` is imported with the first line, and takes 6 ms.

    Args:
        name: Of the logger.
    """
    return cast("Logger", _Late(lambda: _logger(name)))


def _logger(name: str) -> Logger:
    from logging import getLogger

    return getLogger(name)


class _Late:
    def __init__(self, make: Callable[[], object]) -> None:
        self._make = make

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._make(), name)
        if callable(value):  # a method, which is found without this function from now on
            setattr(self, name, value)
        return value

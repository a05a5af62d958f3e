"""Regular expressions that are compiled when they are first used."""

from __future__ import annotations

import re
from typing import Any, cast

__all__ = ["late_pattern"]


def late_pattern(pattern: str, flags: int = 0) -> re.Pattern[str]:
    """Return what ``re.compile`` would, compiled on its first use.

    For what a stack without mistakes may never ask: each compilation holds an import up by 0.1 to
    1 ms, and a start of six layers had 14 ms of them. A pattern of the plain request is better compiled
    at once: to look a method up here costs 30 ns more.

    Args:
        pattern: The regular expression.
        flags: As ``re.compile`` takes them.
    """
    return cast("re.Pattern[str]", _Late(pattern, flags))


class _Late:
    def __init__(self, pattern: str, flags: int) -> None:
        self._source = (pattern, flags)

    def __getattr__(self, name: str) -> Any:
        # Python looks here only for what is not set yet.
        value = getattr(re.compile(*self._source), name)
        setattr(self, name, value)
        return value

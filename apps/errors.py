"""What rules and URLs raise."""

from __future__ import annotations

from lamella.stack.kernel.errors import ConfigError, LamellaError

__all__ = ["AmbiguousRouteError", "UrlError"]


class UrlError(LamellaError, LookupError):
    """No URL can be made: no rule has that name, or none takes these values."""


class AmbiguousRouteError(ConfigError):
    """Two rules match the same request and nothing says which goes first.

    Args:
        rule: The rule that was to be added.
        other: The rule that is there already.
    """

    def __init__(self, rule: object, other: object) -> None:
        super().__init__("rule", rule, f"a rule that cannot match what {other} matches")
        self.rule = rule
        self.other = other

    def __str__(self) -> str:
        return (
            f"ambiguous: {self.rule} and {self.other} match the same requests; change a path, a method, "
            "or the weight of a converter"
        )

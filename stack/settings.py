"""The options of a layer as they are shown: values, where they come from, secrets masked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lamella.stack.kernel.options import Secret

__all__ = ["Origin", "Setting", "holds_secret"]


class Origin:
    """Where the value of an option comes from.

    Args:
        kind: ``default``, ``python``, ``file``; ``env`` or ``insecure`` where the value is not in the
            stack file itself, ``outside`` where it comes from another file or from several places.
        detail: From where, such as ``env SHOP_KEY``.
        profile: Name of the profile that sets it; empty outside of profiles.
        file: The stack file, where it stands in one.
        line: Counted from 1.
        column: Counted from 1.
    """

    __slots__ = ("column", "detail", "file", "kind", "line", "profile")

    def __init__(
        self, kind: str, detail: str = "", *, profile: str = "", file: str = "", line: int = 0, column: int = 0
    ) -> None:
        self.kind = kind
        self.detail = detail
        self.profile = profile
        self.file = file
        self.line = line
        self.column = column

    def __str__(self) -> str:
        if not self.file:
            return self.kind
        at = f"{self.file}:{self.line}"
        words = [f"profile {self.profile}"] if self.profile else []
        if self.detail:
            words.append(self.detail)
        return f"{', '.join(words)} ({at})" if words else at

    def __repr__(self) -> str:
        return f"<Origin {self}>"


class Setting:
    """One option of a layer, for showing.

    Args:
        name: The option.
        value: What the factory gets; a secret one is shown as ``***`` by :attr:`shown` and ``repr``.
        origin: Where the value comes from.
        is_secret: The value is masked.
    """

    __slots__ = ("is_secret", "name", "origin", "value")

    def __init__(self, name: str, value: Any, origin: Origin, is_secret: bool) -> None:
        self.name = name
        self.value = value
        self.origin = origin
        self.is_secret = is_secret

    @property
    def shown(self) -> str:
        """The value as text, masked where it is secret."""
        if self.is_secret and self.value is not None:
            if isinstance(self.value, (list, tuple)):
                return "[" + ", ".join("***" for _ in self.value) + "]"
            return "***"
        return repr(self.value)

    def __repr__(self) -> str:
        return f"<Setting {self.name}={self.shown} from {self.origin}>"


# How the hash of a password begins; a hash is not for everybody's eyes either.
_HASHES = ("$2a$", "$2b$", "$2y$", "$5$", "$6$", "$argon2", "$apr1$", "{SHA}")


def holds_secret(value: object) -> bool:
    if isinstance(value, Secret):
        return True
    if isinstance(value, str):
        # The second is an address with a user and mostly a password: redis://:password@host.
        return value.startswith(_HASHES) or "@" in value.partition("://")[2]
    if isinstance(value, Mapping):
        return any(map(holds_secret, value.values())) or any(map(_is_digest, value))
    return isinstance(value, (list, tuple)) and any(map(holds_secret, value))


def _is_digest(name: object) -> bool:
    """Tell whether a key is the SHA-256 of something, as tables of tokens have them."""
    return isinstance(name, str) and len(name) == 64 and not name.strip("0123456789abcdefABCDEF")

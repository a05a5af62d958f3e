"""Patterns of hosts: ``<tenant>.example.com``, ``*.example.com``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from lamella.stack.kernel.errors import ConfigError
from lamella.stack.kernel.http import parse_host

from .errors import UrlError
from .patterns import RESERVED_NAMES, VARIABLE

__all__ = ["HostPattern"]


class HostPattern:
    """A host with variables: ``example.com``, ``<tenant>.example.com``, ``*.example.com``.

    A variable stands for one label, the star for one or more. A port of the request is not looked at.

    Attributes:
        source: As written, in lower case.
        names: Names of the variables.
        key: Equal for patterns that match the same hosts.
        rank: The smaller goes first.

    Raises:
        ConfigError: Not a host.
    """

    __slots__ = ("_labels", "_regex", "key", "names", "rank", "source")

    def __init__(self, source: str) -> None:
        expected = 'a host such as "example.com", "<name>.example.com" or "*.example.com", without a port'
        if not isinstance(source, str):
            raise ConfigError("host", source, expected)
        labels = source.removesuffix(".").split(".") if not source.startswith("[") else [source]
        names, literal, pieces, key = [], [], [], []
        for number, label in enumerate(labels):
            if label == "*" and number == 0 and len(labels) > 1:
                pieces.append(r"[a-z0-9_-]+(?:\.[a-z0-9_-]+)*")
                key.append("*")
            elif found := VARIABLE.fullmatch(label):
                if found[1] is not None or found[3] in RESERVED_NAMES:
                    raise ConfigError("host", source, expected)
                names.append(found[3])
                pieces.append("([a-z0-9_-]+)")
                key.append("<>")
            else:
                literal.append(label.lower())
                pieces.append(re.escape(label.lower()))
                key.append(label.lower())
        probe = parse_host(".".join(label if label not in ("*", "<>") else "x" for label in key))
        if probe is None or probe.port is not None or len(set(names)) != len(names):
            raise ConfigError("host", source, expected)
        self._labels = labels
        self.source = source
        self.names = tuple(names)
        self.key = ".".join(key)
        self.rank = (key[0] == "*", -len(literal), tuple(label == "<>" for label in reversed(key)), self.key)
        self._regex = re.compile(r"\.".join(pieces))

    def match(self, host: str) -> tuple[str, ...] | None:
        """Return the values in *host*, which is in lower case and without a port; None where it does not match."""
        found = self._regex.fullmatch(host.removesuffix("."))
        return None if found is None else found.groups()

    def build(self, values: Mapping[str, Any]) -> str:
        """Return the host for *values*.

        Raises:
            UrlError: A value is no label, or there is a star.
        """
        text = ".".join(
            str(values[label[1:-1]]).lower() if label.startswith("<") else label.lower() for label in self._labels
        )
        if "*" in text or parse_host(text) is None or self.match(text) is None:
            raise UrlError(f"no host that {self.source} matches can be made of these values")
        return text

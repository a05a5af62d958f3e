"""What a CORS policy allows, without WSGI: origins, methods, headers, and the answers' fields."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from lamella.stack.kernel.errors import ConfigError
from lamella.stack.kernel.http import is_token, parse_list, parse_origin
from lamella.stack.kernel.late import late_pattern
from lamella.stack.kernel.options import Duration, duration, regex, strings
from lamella.stack.kernel.response import Headers

__all__ = ["OriginSpec", "Policy"]

#: How one origin is written: text, or a table with ``exact``, ``suffix`` or ``regex``.
OriginSpec = str | Mapping[str, str]

STANDARD_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
#: Fetch standard, "CORS-safelisted method": a browser sends these whatever a preflight says.
_SAFELISTED = frozenset({"GET", "HEAD", "POST"})
# What one preflight may ask for; browsers send a handful, servers cut a field at 8 KiB.
_MOST_HEADERS = 64
_LABELS = late_pattern(r"(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+")


class Policy:
    """One set of rules, checked; answers with ready-made header fields.

    Raises:
        ConfigError: An option is malformed, or the combination would let any origin in with credentials.
    """

    __slots__ = (
        "_allow",
        "_allowed_headers",
        "_allowed_methods",
        "_exact",
        "_preflight",
        "_reflect",
        "_tests",
        "constant",
        "credentials",
        "private_network",
    )

    def __init__(
        self,
        *,
        origins: str | Iterable[OriginSpec],
        credentials: bool,
        methods: Iterable[str],
        headers: str | Iterable[str],
        expose: str | Iterable[str],
        max_age: Duration | None,
        private_network: bool,
    ) -> None:
        self.credentials = _boolean("credentials", credentials)
        self.private_network = _boolean("private_network", private_network)
        self._exact, self._tests, every = _read_origins(origins, self.credentials)
        #: Whether every answer carries the same ``Access-Control-Allow-Origin: *``.
        self.constant = every
        self._allowed_methods = _read_methods(methods)
        names = _read_names("headers", headers, self.credentials)
        self._reflect = "*" in names
        self._allowed_headers = frozenset(name.lower() for name in names)
        exposed = _read_names("expose", expose, self.credentials)
        self._allow: Headers = [("Access-Control-Allow-Credentials", "true")] if self.credentials else []
        self._preflight = list(self._allow)
        if exposed:
            self._allow.append(("Access-Control-Expose-Headers", ", ".join(exposed)))
        self._preflight.append(("Access-Control-Allow-Methods", ", ".join(self._allowed_methods)))
        if names and not self._reflect:
            self._preflight.append(("Access-Control-Allow-Headers", ", ".join(names)))
        if max_age is not None:
            self._preflight.append(("Access-Control-Max-Age", str(int(duration("max_age", max_age)))))

    def allows(self, origin: str) -> bool:
        """Tell whether *origin*, byte for byte as the client sent it, is allowed."""
        if self.constant or origin in self._exact:
            return True
        if not self._tests:
            return False
        parsed = parse_origin(origin)
        # Browsers send the canonical serialization; anything else is somebody pretending.
        return parsed is not None and str(parsed) == origin and any(test(origin) for test in self._tests)

    def answer_fields(self, origin: str | None) -> Headers:
        """Return what to add to an actual answer."""
        if self.constant:
            return [("Access-Control-Allow-Origin", "*"), *self._allow]
        if origin is None or not self.allows(origin):
            return []
        return [("Access-Control-Allow-Origin", origin), *self._allow]

    def preflight_fields(self, origin: str, method: str, headers: str, *, private: bool) -> Headers | str:
        """Answer a preflight (Fetch standard, "CORS-preflight fetch").

        Args:
            origin: The Origin field.
            method: Access-Control-Request-Method.
            headers: Access-Control-Request-Headers, empty where absent.
            private: Whether Access-Control-Request-Private-Network is ``true``.

        Returns:
            The fields that allow the request, or why it is refused.
        """
        if not self.allows(origin):
            return "the origin is not allowed"
        if method not in self._allowed_methods and method not in _SAFELISTED:
            return "the method is not allowed"
        asked = parse_list(headers)
        if len(asked) > _MOST_HEADERS or not all(map(is_token, asked)):
            return "the requested headers are malformed"
        if not self._reflect and not self._allowed_headers.issuperset(name.lower() for name in asked):
            return "a requested header is not allowed"
        if private and not self.private_network:
            return "requests from a public to a private network are not allowed"
        fields = [("Access-Control-Allow-Origin", "*" if self.constant else origin), *self._preflight]
        if self._reflect and asked:
            fields.append(("Access-Control-Allow-Headers", ", ".join(asked)))
        if private:
            fields.append(("Access-Control-Allow-Private-Network", "true"))
        return fields


def _boolean(option: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise ConfigError(option, value, "true or false")
    return value


def _read_methods(methods: Iterable[str]) -> tuple[str, ...]:
    """``"*"`` stands for the standard methods; one of your own must be listed."""
    listed = ("*",) if methods == "*" else strings("methods", methods, is_token, "methods")
    for method in listed:
        if method != method.upper():
            raise ConfigError("methods", method, "methods in capitals: they are case-sensitive")
    return tuple(dict.fromkeys([*(m for m in listed if m != "*"), *(STANDARD_METHODS if "*" in listed else ())]))


def _read_names(option: str, names: str | Iterable[str], credentials: bool) -> tuple[str, ...]:
    listed = ("*",) if names == "*" else strings(option, names, is_token, "header names")
    if "*" in listed and credentials:
        # Fetch standard: with credentials "*" is the name of a header called "*".
        raise ConfigError(option, "*", 'header names: with credentials "*" is no wildcard, list them')
    return listed


def _read_origins(
    origins: str | Iterable[OriginSpec], credentials: bool
) -> tuple[frozenset[str], tuple[Callable[[str], bool], ...], bool]:
    """Return exact origins, tests for the others, and whether all are allowed."""
    expected = 'a list of origins such as "https://shop.example", { suffix = ".shop.example" }, { regex = "…" }'
    if origins == "*":
        origins = ["*"]
    if isinstance(origins, (str, bytes, Mapping)) or not isinstance(origins, Iterable):
        raise ConfigError("origins", origins, expected)
    exact: set[str] = set()
    tests: list[Callable[[str], bool]] = []
    every = False
    for item in origins:
        if item in ("*", "null"):
            if credentials:
                whom = "every site" if item == "*" else "every sandboxed page of every site"
                raise ConfigError("origins", item, f"named origins: with credentials {item!r} would let {whom} in")
            every = every or item == "*"
            exact.add(str(item))
        elif isinstance(item, str) and "*" not in item:
            exact.add(_read_exact(item))
        elif isinstance(item, str):
            tests.append(_read_wildcard(item, expected))
        elif isinstance(item, Mapping) and set(item) <= {"suffix", "scheme", "port"} and "suffix" in item:
            tests.append(_read_suffix(item))
        elif isinstance(item, Mapping) and set(item) == {"regex"}:
            tests.append(_read_regex(item["regex"], credentials))
        elif isinstance(item, Mapping) and set(item) == {"exact"}:
            exact.add(_read_exact(item["exact"]))
        else:
            raise ConfigError("origins", item, expected)
    return frozenset(exact), tuple(tests), every


def _read_exact(text: Any) -> str:
    parsed = parse_origin(text) if isinstance(text, str) else None
    if parsed is None:
        raise ConfigError("origins", text, "an origin: scheme, host and port, without a path or a slash at the end")
    return str(parsed)


def _read_wildcard(text: str, expected: str) -> Callable[[str], bool]:
    scheme, _, rest = text.partition("://")
    host, colon, port = rest.partition(":")
    if not host.startswith("*.") or "*" in host[1:] or "*" in scheme or "*" in port:
        raise ConfigError("origins", text, expected)
    return _read_suffix({"scheme": scheme, "suffix": host[1:], **({"port": port} if colon else {})})


def _read_suffix(table: Mapping[str, Any]) -> Callable[[str], bool]:
    """Origins below a domain: one scheme, one port, letters, digits and hyphens only."""
    suffix, scheme, port = table["suffix"], table.get("scheme", "https"), str(table.get("port", ""))
    domain = suffix.lower().removeprefix(".") if isinstance(suffix, str) else ""
    sample = parse_origin(f"{scheme}://a.{domain}" + (f":{port}" if port else ""))
    if sample is None or not suffix.startswith(".") or _LABELS.fullmatch(domain + ".") is None:
        raise ConfigError("origins", dict(table), '{ suffix = ".shop.example" }, with scheme and port where needed')
    from ._cors_domains import is_shared

    if is_shared(domain):
        raise ConfigError("origins", suffix, f"a domain of your own: anybody can have a name below {domain!r}")
    before, after = f"{sample.scheme}://", str(sample).partition("://")[2][1:]

    def below(origin: str) -> bool:
        if not (origin.startswith(before) and origin.endswith(after)):
            return False
        return _LABELS.fullmatch(origin[len(before) : len(origin) - len(after)] + ".") is not None

    return below


def _read_regex(pattern: Any, credentials: bool) -> Callable[[str], bool]:
    """A regular expression, matched as a whole; with credentials it must not let strangers in."""
    compiled = regex("origins", pattern)
    from ._cors_domains import stray_ending  # most policies name their origins

    stray = stray_ending(compiled) if credentials else None
    if stray is not None:
        said = "a regular expression that ends in a domain of your own, such as https://[a-z0-9-]+\\.shop\\.example"
        why = f"anybody can have a host that ends in {stray!r}" if stray else "anybody can have a host that it matches"
        raise ConfigError("origins", compiled.pattern, f"{said} (with every dot escaped): with credentials, {why}")

    def matches(origin: str) -> bool:
        return compiled.fullmatch(origin) is not None

    return matches

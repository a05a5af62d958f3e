"""The security headers' values, without WSGI: a Content-Security-Policy builder, and which value is stricter."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from lamella.stack.kernel.errors import ConfigError
from lamella.stack.kernel.http import is_token, parse_list, quote_string
from lamella.stack.kernel.options import strings
from lamella.stack.kernel.response import Headers

__all__ = ["NONCE", "STRICTNESS", "CspOption", "build_csp", "build_endpoints", "build_permissions", "merge", "stricter"]

#: What stands for the nonce of the answer in a policy; no policy of a user can hold it.
NONCE = "\0"

#: A policy as text, as a table from directive to sources, or false for none.
CspOption = str | Mapping[str, str | bool | Iterable[str]] | Literal[False]

# Content Security Policy Level 3, section 6; Upgrade Insecure Requests; Trusted Types.
_DIRECTIVES = frozenset(
    {"default-src", "script-src", "script-src-elem", "script-src-attr", "style-src", "style-src-elem", "style-src-attr"}
    | {"img-src", "font-src", "connect-src", "media-src", "object-src", "frame-src", "child-src", "worker-src"}
    | {"manifest-src", "prefetch-src", "base-uri", "form-action", "frame-ancestors", "sandbox", "report-uri"}
    | {"report-to", "upgrade-insecure-requests", "block-all-mixed-content", "require-trusted-types-for"}
    | {"trusted-types", "fenced-frame-src", "navigate-to"}
)
_KEYWORDS = frozenset(
    {"self", "none", "unsafe-inline", "unsafe-eval", "strict-dynamic", "unsafe-hashes", "report-sample"}
    | {"wasm-unsafe-eval", "inline-speculation-rules", "script"}
)
_UNQUOTED = frozenset({"sandbox", "report-to", "report-uri", "trusted-types"})
# Section 2.2.1: directive values are visible characters and spaces, without ";" and ",".
# Section 6.1: what a page may load and run; the rest of the directives is about the page itself.
_FETCH = frozenset(name for name in _DIRECTIVES if name.partition("-src")[1])
_HASH = re.compile(r"'sha(?:256|384|512)-[A-Za-z0-9+/_-]+={0,2}'")
_SOURCE = re.compile(r"[\x21-\x2b\x2d-\x3a\x3c-\x7e]+")
_FEATURE = re.compile(r"[a-z0-9-]+")

#: Values from the loosest to the strictest; a value that is not listed is not compared.
STRICTNESS: dict[str, tuple[str, ...]] = {
    "x-frame-options": ("sameorigin", "deny"),
    "x-content-type-options": ("nosniff",),
    "referrer-policy": (  # Referrer Policy section 3, by how much another origin learns
        "unsafe-url",
        "no-referrer-when-downgrade",
        "origin-when-cross-origin",
        "origin",
        "strict-origin-when-cross-origin",
        "strict-origin",
        "same-origin",
        "no-referrer",
    ),
    "cross-origin-opener-policy": (
        "unsafe-none",
        "noopener-allow-popups",
        "same-origin-allow-popups",
        "same-origin",
        "same-origin-plus-coep",
    ),
    "cross-origin-resource-policy": ("cross-origin", "same-site", "same-origin"),
    "cross-origin-embedder-policy": ("unsafe-none", "credentialless", "require-corp"),
}


def stricter(name: str, inside: str, ours: str) -> str:
    """Return the stricter of two values of the header *name* (in lower case); the app's where none is.

    Args:
        name: One of :data:`STRICTNESS`.
        inside: What the app sent. A list, as Referrer-Policy may have, counts by its last known value.
        ours: What the layer would send.
    """
    order = STRICTNESS[name]
    known = [
        value for value in (item.partition(";")[0].strip().lower() for item in parse_list(inside)) if value in order
    ]
    if not known or order.index(ours.lower()) > order.index(known[-1]):
        return ours
    return inside


def build_csp(option: str, policy: CspOption) -> str | None:
    """Return the text of a Content-Security-Policy, with :data:`NONCE` where a nonce goes, or None.

    Raises:
        ConfigError: An unknown directive, or a source that would end its directive or the header.
    """
    if policy is False:
        return None
    table = _parse(option, policy) if isinstance(policy, str) else policy
    if not isinstance(table, Mapping) or not table:
        raise ConfigError(option, policy, "a policy as text or as a table of directives, or false")
    parts = []
    for directive, value in table.items():
        name = directive.lower() if isinstance(directive, str) else ""
        if name not in _DIRECTIVES:
            raise ConfigError(option, directive, "directives of CSP Level 3, such as script-src" + _near(name))
        if value is False:
            continue
        sources = [] if value is True else value.split() if isinstance(value, str) else value
        if isinstance(sources, (bytes, Mapping)) or not isinstance(sources, Iterable):
            raise ConfigError(f"{option}.{name}", value, "a list of sources")
        parts.append(" ".join([name, *(_source(f"{option}.{name}", item, name) for item in sources)]))
    return "; ".join(parts)


def _parse(option: str, text: str) -> dict[str, list[str]]:
    table: dict[str, list[str]] = {}
    for part in text.split(";"):
        words = part.split()
        if words:
            # Section 2.2.1: of two directives with one name the first counts.
            table.setdefault(words[0].lower(), words[1:])
    if not table:
        raise ConfigError(option, text, "at least one directive")
    return table


def _source(option: str, item: object, directive: str) -> str:
    """One source, with the quotes that keywords need."""
    expected = 'sources such as "self", "nonce", "https://cdn.example", "data:"'
    if not isinstance(item, str):
        raise ConfigError(option, item, expected)
    bare = item.strip("'")
    if bare in ("nonce", "{nonce}", "nonce-{nonce}"):
        return f"'nonce-{NONCE}'"
    if _SOURCE.fullmatch(item) is None:
        raise ConfigError(option, item, expected)
    if directive in _UNQUOTED:
        return item
    if bare in _KEYWORDS or bare.startswith(("nonce-", "sha256-", "sha384-", "sha512-")):
        return f"'{bare}'"
    return item


def _near(name: str) -> str:
    from difflib import get_close_matches

    near = get_close_matches(name, _DIRECTIVES, 1)
    return f" (did you mean {near[0]}?)" if near else ""


def build_permissions(option: str, value: Mapping[str, Any] | Literal[False]) -> str | None:
    """Return a Permissions-Policy: features, each with its allow-list (``[]``, ``"self"``, ``"*"``, origins)."""
    if value is False:
        return None
    if not isinstance(value, Mapping) or not value:
        raise ConfigError(option, value, "a table from feature to its allow-list, or false")
    parts = []
    for feature, allowed in value.items():
        if not isinstance(feature, str) or _FEATURE.fullmatch(feature) is None:
            raise ConfigError(option, feature, 'names of features such as "geolocation"')
        items = strings(
            f"{option}.{feature}",
            (allowed,) if isinstance(allowed, str) else allowed,
            lambda item: item != "" and item.isascii() and item.isprintable(),
            'a list of "self", "*" and origins',
        )
        if items == ("*",):
            parts.append(f"{feature}=*")
        else:
            written = (item if item in ("self", "src") else quote_string(item) for item in items)
            parts.append(f"{feature}=({' '.join(written)})")
    return ", ".join(parts)


def build_endpoints(option: str, value: Mapping[str, str]) -> str | None:
    """Return Reporting-Endpoints (Reporting API): names and the addresses that take reports."""
    if not isinstance(value, Mapping):
        raise ConfigError(option, value, "a table from name to https address")
    if not value:
        return None
    for name, address in value.items():
        if (
            not isinstance(name, str)
            or not is_token(name)
            or not isinstance(address, str)
            or not address.startswith(("https://", "/"))
        ):
            raise ConfigError(option, {name: address}, "a table from name to https address or absolute path")
        if _SOURCE.fullmatch(address) is None:
            raise ConfigError(option, address, "an address without spaces, commas and semicolons")
    return ", ".join(f"{name}={quote_string(address)}" for name, address in value.items())


def _is_sealed(policy: str) -> bool:
    """Tell whether a policy lets nothing in but what it names by its hash, as that of a page of ours does.

    ``'self'`` outside would forbid the page its own inline style, and could not let anything more in.
    """
    table = {words[0].lower(): words[1:] for part in policy.split(";") if (words := part.split())}
    fetched = [source for name, sources in table.items() if name in _FETCH for source in sources or ["'none'"]]
    hashes = sum(_HASH.fullmatch(source) is not None for source in fetched)
    return hashes > 0 and "default-src" in table and hashes + fetched.count("'none'") == len(fetched)


def merge(headers: Headers, ours: Headers) -> Headers:
    """Add *ours* to the app's *headers*: for each field the stricter value holds.

    A Content-Security-Policy of the app stays beside ours: browsers enforce both. Of ours goes what
    the app's, by hashes, says more exactly. What cannot be compared (Permissions-Policy,
    Reporting-Endpoints) stays the app's.
    """
    mine = {name.lower(): (name, value) for name, value in ours}
    if any(name.lower() == "content-security-policy" and _is_sealed(value) for name, value in headers):
        for policy in ("content-security-policy", "content-security-policy-report-only"):
            name, value = mine.pop(policy, ("", ""))
            rest = [part for part in value.split("; ") if part.partition(" ")[0] not in _FETCH]
            if any(rest):
                mine[policy] = (name, "; ".join(rest))
    kept: Headers = []
    for name, value in headers:
        lower = name.lower()
        if lower not in mine or lower.startswith("content-security-policy"):
            kept.append((name, value))
        elif lower in STRICTNESS:
            kept.append((name, stricter(lower, value, mine.pop(lower)[1])))
        else:
            mine.pop(lower)
            kept.append((name, value))
    return [*kept, *mine.values()]

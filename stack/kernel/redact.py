"""What must not be shown: secrets in names, queries and addresses, found by how they are called.

Used wherever something that came from a client is written down: logs, error pages, traces.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from urllib.parse import unquote_plus

from .late import late_pattern

__all__ = ["REDACTED", "is_secret", "redact_query", "redact_url", "secret_names"]

#: Stands where a secret was.
REDACTED = "***"

# Long enough to mean a secret wherever they occur in a name ("accesstoken", "x-csrftoken").
_STEMS = late_pattern(
    r"token|passw|passphrase|secret|signature|credential|authoriz|apikey|accesskey|privatekey|cookie|assertion"
    r"|sessionid|samlre",
    re.I,
)
# Secret only as whole words: "key" and "api_key", but neither "keyboard" nor "monkey".
_WORDS = frozenset(
    {"auth", "code", "hmac", "jwt", "key", "keys", "nonce", "otp", "pass", "pin", "pwd", "session", "sid", "sig"}
    | {"ticket", "totp", "verifier", "webhook"}
)
_SHORTEST_NAME = min(map(len, _WORDS))
_SPLIT = late_pattern(r"[^A-Za-z0-9]+|(?<=[a-z0-9])(?=[A-Z])")
# A separator of either kind: old parsers still split at ";" as well.
_PAIRS = late_pattern(r"([&;])")
# A name this long is nobody's parameter, a value this long no address: neither is decoded, both are hidden.
_LONGEST_NAME = 256
_LONGEST_VALUE = 8192


def is_secret(name: str) -> bool:
    """Tell whether a parameter, header or key called *name* usually holds a secret."""
    if len(name) < _SHORTEST_NAME:
        return False
    if _STEMS.search(name) is not None:
        return True
    if len(name) <= _LONGEST_NAME:
        return not _WORDS.isdisjoint(map(str.lower, _SPLIT.split(name)))
    return True


def secret_names(more: Collection[str] = ()) -> Callable[[str], bool]:
    """Return a test like :func:`is_secret` that also knows the names *more*, in any case."""
    known = frozenset(name.lower() for name in more)
    if not known:
        return is_secret
    return lambda name: name.lower() in known or is_secret(name)


def redact_query(query: str, hides: Callable[[str], bool] = is_secret) -> str:
    """Return *query* with the value of each secret parameter replaced.

    Names are compared as an app would read them, percent-decoded. A value that holds
    parameters itself (a return address with a token) is hidden as a whole. What has no
    secret comes back unchanged, character by character.

    Args:
        query: Everything behind the question mark, as sent.
        hides: Says which names are secret.
    """
    if "=" not in query:
        return query
    pieces = _PAIRS.split(query)
    for at in range(0, len(pieces), 2):
        name, equals, value = pieces[at].partition("=")
        if equals and value and (hides(_decoded(name)) or _holds_secret(value, hides)):
            pieces[at] = f"{name}={REDACTED}"
    return "".join(pieces)


def redact_url(url: str, hides: Callable[[str], bool] = is_secret) -> str:
    """Return *url* without user information, and with query and fragment redacted."""
    rest, hash_sign, fragment = url.partition("#")
    rest, mark, query = rest.partition("?")
    scheme, slashes, remote = rest.partition("//")
    if slashes:
        authority, slash, path = remote.partition("/")
        if "@" in authority:
            rest = f"{scheme}//{REDACTED}@{authority.rpartition('@')[2]}{slash}{path}"
    return rest + mark + redact_query(query, hides) + hash_sign + redact_query(fragment, hides)


def _decoded(name: str) -> str:
    return unquote_plus(name) if ("%" in name or "+" in name) and len(name) <= 3 * _LONGEST_NAME else name


def _holds_secret(value: str, hides: Callable[[str], bool]) -> bool:
    """Tell whether *value* is itself an address or a query with a secret in it."""
    if "=" not in value and "%3" not in value:  # "%3D" is "="
        return False
    if len(value) > _LONGEST_VALUE:
        return True
    pairs = (pair.partition("=") for pair in re.split("[?&;#]", unquote_plus(value)))
    return any(hides(_decoded(name)) for name, equals, _ in pairs if equals)

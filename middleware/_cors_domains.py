"""Below which domains anybody gets a name, and which domain a regular expression of origins cannot leave.

An origin that is let in with credentials reads what its user may read. So whatever may vary in it must
stand below a domain of one's own: this is proved from the expression's structure, not tried with samples.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from lamella.stack.kernel.late import late_pattern

__all__ = ["is_shared", "stray_ending"]

# From the Public Suffix List, where people most often go wrong: registries, and hosts of other people's sites.
# fmt: off
_SHARED = frozenset((
    "me.uk", "ltd.uk", "plc.uk", "ne.jp", "or.jp", "or.kr", "or.at", "eu.org", "us.com", "uk.com", "js.org", "is-a.dev",
    "github.io", "gitlab.io", "bitbucket.io", "codeberg.page", "sourceforge.io", "readthedocs.io", "gitbook.io",
    "github.dev", "app.github.dev", "githubpreview.dev", "gitpod.io", "csb.app", "codesandbox.io", "stackblitz.io",
    "webcontainer.io", "repl.co", "replit.app", "replit.dev", "glitch.me", "surge.sh", "neocities.org", "tiiny.site",
    "herokuapp.com", "vercel.app", "now.sh", "netlify.app", "netlify.com", "pages.dev", "workers.dev", "r2.dev",
    "web.app", "firebaseapp.com", "appspot.com", "r.appspot.com", "cloudfunctions.net", "azurewebsites.net",
    "azurestaticapps.net", "azurefd.net", "azureedge.net", "cloudapp.net", "cloudfront.net", "elasticbeanstalk.com",
    "amplifyapp.com", "ondigitalocean.app", "fly.dev", "onrender.com", "railway.app", "up.railway.app", "koyeb.app",
    "deno.dev", "deno.net", "supabase.co", "streamlit.app", "hf.space", "pythonanywhere.com", "lovable.app",
    "framer.app", "notion.site", "webflow.io", "wixsite.com", "weebly.com", "wordpress.com", "blogspot.com",
    "myshopify.com", "tumblr.com", "ngrok.io", "ngrok.app", "ngrok.dev", "ngrok-free.app", "ngrok-free.dev",
    "trycloudflare.com", "loca.lt", "localhost.run", "lhr.life", "serveo.net", "ts.net", "duckdns.org", "ddns.net",
    "dyndns.org", "no-ip.org", "hopto.org", "translate.goog",
))
#: Of these, everything below is shared as well.
_SHARED_BELOW = (
    "amazonaws.com", "on.aws", "windows.net", "cloudapp.azure.com", "run.app", "googleusercontent.com",
    "digitaloceanspaces.com", "backblazeb2.com", "nip.io", "sslip.io", "xip.io",
)
# fmt: on
#: ``co.uk``, ``com.br``: what countries put before their own two letters.
_COUNTRY = late_pattern(r"(?:co|com|net|org|gov|edu|ac)\.[a-z]{2}")

_PORT = late_pattern(r":[0-9\0]+\Z")
#: Stands for any run of digits within an ending.
_DIGITS = "\0"
#: More endings than anybody writes; the expression is then taken for one that anything can match.
_MOST_ENDINGS = 256
_ANYTHING = frozenset({("", False)})


def is_shared(domain: str) -> bool:
    """Tell whether anybody can have a name below *domain* (in lower case, without a leading dot)."""
    if domain == "localhost":  # RFC 6761 section 6.3: always this machine
        return False
    last = domain.rpartition(".")[2]
    if "." not in domain or not last or last.isdigit():
        return True
    if domain in _SHARED or _COUNTRY.fullmatch(domain) is not None:
        return True
    return any(domain == other or domain.endswith("." + other) for other in _SHARED_BELOW)


def stray_ending(pattern: re.Pattern[str]) -> str | None:
    """Find an ending of what *pattern* matches with which the origin may be a stranger's.

    Args:
        pattern: Is used with ``fullmatch`` on well-formed origins.

    Returns:
        The text that stands fixed behind what may vary, such as ``shop.example`` of
        ``https://.*shop\\.example``; empty where the end itself may vary. None where all is well.
    """
    from re import _parser  # type: ignore[attr-defined]  # as the module re itself: no other one tells the structure

    endings = _endings_of(
        _parser.parse(pattern.pattern, pattern.flags & ~re.DEBUG), bool(pattern.flags & re.IGNORECASE)
    )
    for text, complete in sorted(endings):
        text = _PORT.sub("", text)
        _, digits, after = text.rpartition(_DIGITS)
        if digits:
            text, complete = after, False
        if complete or "://" in text:  # one host, named in full
            continue
        # The first label may be the end of a longer one: only what follows its dot is certain.
        if is_shared(text.partition(".")[2]):
            return text
    return None


_Endings = Iterable[tuple[str, bool]]


def _endings_of(parsed: Sequence[tuple[Any, Any]], ignore_case: bool) -> frozenset[tuple[str, bool]]:
    """Return all endings of what a sequence matches: fixed text, and whether it is everything, with nothing before.

    Never too few of them: what is not understood may be anything.
    """
    endings: frozenset[tuple[str, bool]] = frozenset({("", True)})
    for code, argument in reversed(parsed):
        if not any(complete for _, complete in endings):
            break
        choices = _choices(str(code), argument, ignore_case)
        endings = frozenset(
            (choice + text, whole) if complete else (text, False)
            for text, complete in endings
            for choice, whole in (choices if complete else (("", True),))
        )
        if len(endings) > _MOST_ENDINGS:
            return _ANYTHING
    return endings


def _choices(code: str, argument: Any, ignore_case: bool) -> _Endings:
    """Return the endings of one item of an expression."""
    if code == "LITERAL":
        character = chr(argument)
        if not character.isascii():  # may match an ASCII letter too, where case is ignored
            return _ANYTHING
        return {(character.lower() if ignore_case else character, True)}
    if code in ("AT", "ASSERT", "ASSERT_NOT"):  # has no width, and can only match less
        return {("", True)}
    if code == "SUBPATTERN":
        _, added, removed, inner = argument
        return _endings_of(inner, (ignore_case or bool(added & re.IGNORECASE)) and not removed & re.IGNORECASE)
    if code == "ATOMIC_GROUP":
        return _endings_of(argument, ignore_case)
    if code == "BRANCH":
        return frozenset().union(*(_endings_of(branch, ignore_case) for branch in argument[1]))
    if code in ("MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT"):
        least, most, inner = argument
        return _repeated(least, most, inner, ignore_case)
    if code == "IN":
        return _one_of(argument, ignore_case)
    return _ANYTHING


def _repeated(least: int, most: int, inner: Any, ignore_case: bool) -> _Endings:
    if len(inner) == 1 and _is_digit(*inner[0]):
        return {(_DIGITS, True), ("", True)} if least == 0 else {(_DIGITS, True)}
    if most > 3:  # the last time, behind any number of others
        last = {(text, False) for text, _ in _endings_of(inner, ignore_case)}
        return last | {("", True)} if least == 0 else last
    found: set[tuple[str, bool]] = set()
    for times in range(least, most + 1):
        found |= _endings_of(list(inner) * times, ignore_case)
    return found


def _one_of(items: Any, ignore_case: bool) -> _Endings:
    """A class of characters: each of them, where they are few and written out."""
    if _is_digit("IN", items):
        return {(_DIGITS, True)}
    found: set[tuple[str, bool]] = set()
    for code, argument in items:
        if str(code) != "LITERAL":
            return _ANYTHING
        found |= set(_choices("LITERAL", argument, ignore_case))
    return found


def _is_digit(code: Any, argument: Any) -> bool:
    """Tell whether an item matches one digit; of those that are not ASCII, no origin has any."""
    if str(code) != "IN" or len(argument) != 1:
        return False
    kind, what = argument[0]
    if str(kind) == "CATEGORY":
        return str(what) == "CATEGORY_DIGIT"
    return str(kind) == "RANGE" and ord("0") <= what[0] <= what[1] <= ord("9")

"""URLs of views, made of their rules."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, cast
from urllib.parse import quote, urlencode

from lamella.stack.kernel.errors import BadRequestError
from lamella.stack.kernel.http import Origin
from lamella.stack.kernel.keys import ROUTE
from lamella.stack.kernel.targets import own_origin

from .errors import UrlError

if TYPE_CHECKING:
    from wsgiref.types import WSGIEnvironment

    from .rules import Rule

__all__ = ["PATH_SAFE", "build_url"]

#: RFC 3986 section 3.3: what a path may hold as it is.
PATH_SAFE = "/!$&'()*+,;=:@-._~"


def build_url(
    names: Mapping[str, list[Rule]],
    name: str,
    environ: WSGIEnvironment | None,
    values: Mapping[str, object],
    *,
    external: bool = False,
    scheme: str | None = None,
    anchor: str | None = None,
) -> str:
    """Return the URL of the view *name*; see :meth:`lamella.apps.router.Router.url_for`.

    Raises:
        UrlError: No such name, or no rule of it takes these values.
        BadRequestError: An absolute URL is asked for and the request's Host is malformed.
    """
    if name.startswith("."):
        route = ROUTE.get(environ) if environ is not None else None
        prefix = route.endpoint.rpartition(".")[0] if route is not None else ""
        name = f"{prefix}{name}" if prefix else name[1:]
    given = {key: value for key, value in values.items() if value is not None}
    rule, path, host = _find_rule(names, name, given)
    query = {key: value for key, value in given.items() if key not in rule.names and key not in rule.defaults}
    script = environ.get("SCRIPT_NAME", "") if environ is not None else ""
    url = quote(script.encode("latin-1"), safe=PATH_SAFE) + path
    if query:
        url += "?" + urlencode(query, doseq=True)
    if anchor is not None:
        url += "#" + quote(anchor, safe=PATH_SAFE + "?")
    here = None
    if environ is not None and (external or scheme or host is not None):
        here = own_origin(environ)
        if here is None:
            raise BadRequestError("the host is malformed")
    if external or scheme or (host is not None and (here is None or here.host != host)):
        return f"{_target_origin(name, here, host, scheme)}{url}"
    return url


def _target_origin(name: str, here: Origin | None, host: str | None, scheme: str | None) -> Origin:
    """Return where an absolute URL leads: the request's origin, but for what is given."""
    if here is None and host is None:
        raise UrlError(f"an absolute URL of {name!r} needs the request, or a rule with a host")
    there = scheme or (here.scheme if here is not None else "https")
    if there not in ("http", "https"):
        raise UrlError(f"no scheme of a web page: {there!r}")
    port = here.port if here is not None and here.scheme == there else None
    default = 443 if there == "https" else 80
    return Origin(there, host or cast("Origin", here).host, port or default)


def _find_rule(
    names: Mapping[str, list[Rule]], name: str, values: Mapping[str, object]
) -> tuple[Rule, str, str | None]:
    """Find the rule of *name* that takes most of *values*; return it, the path and the host."""
    rules = names.get(name)
    if not rules:
        from difflib import get_close_matches

        near = get_close_matches(name, names, 1)
        raise UrlError(f"no view is named {name!r}" + (f"; did you mean {near[0]!r}?" if near else ""))
    if any(rule.view is not rules[0].view for rule in rules):
        named = [rule for rule in rules if rule.is_named]
        if not named:
            raise UrlError(f"{name!r} is the name of several views; give them names of their own: {rules}")
        rules = named
    fitting = [rule for rule in rules if _fits(rule, values)]
    # The most specific first: most parameters used, then most of them by defaults.
    fitting.sort(key=lambda rule: (-sum(key in values for key in (*rule.names, *rule.defaults)), -len(rule.defaults)))
    reason = ""
    for rule in fitting:
        try:
            host = rule.host_pattern.build(values) if rule.host_pattern is not None else None
            return rule, rule.compiled.build(values) or "/", host
        except UrlError as error:
            reason = f": {error}"
    if not reason:
        missing = sorted(set(rules[0].names) - set(values))
        reason = f": missing {', '.join(missing)}" if missing else f": {rules[0].pattern} has other defaults"
    raise UrlError(f"no rule of {name!r} takes these values{reason}")


def _fits(rule: Rule, values: Mapping[str, object]) -> bool:
    """Tell whether *values* has all parameters, and contradicts no default."""
    if not all(name in values for name in rule.names):
        return False
    return all(values.get(key, default) == default for key, default in rule.defaults.items())

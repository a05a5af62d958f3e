"""Answer whether this process is alive, and whether it is ready to serve, before any app is asked.

``/healthz`` answers 200 as long as the process can answer at all; ``/readyz`` runs named checks and answers 200 or
503. Both are JSON, never cached, and name no more than the checks and how they ended: what a check raised goes to
the logger ``lamella.health``.

.. code-block:: toml

    [[layer]]
    use    = "health"
    checks = { database = "shop.db:ping" }

Place it outside ``hosts``, ``https``, authentication and the mounts, inside ``access_log``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

from lamella.middleware._health_checks import Check, Outcome, run_checks
from lamella.stack.kernel.environ import direct
from lamella.stack.kernel.errors import ConfigError
from lamella.stack.kernel.options import Duration, Reference, duration, reference
from lamella.stack.kernel.order import Inside, Outside
from lamella.stack.kernel.response import answer

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

__all__ = ["HealthMiddleware"]

# Plain ASCII segments: for these, and no others, PATH_INFO and the canonical path are always the same text.
_PATH = re.compile(r"(?:/[A-Za-z0-9_-][A-Za-z0-9_.-]*)+")
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")
_HEADERS = (("Cache-Control", "no-store"), ("X-Content-Type-Options", "nosniff"))
_WHY = "whoever asks for the health has no credentials, and asks by address"


class HealthMiddleware:
    """Answer the questions of load balancers and orchestrators.

    Args:
        app: The application inside.
        live: Path of the liveness question: does the process answer? No check is run.
        ready: Path of the readiness question: do all checks pass?
        checks: Name of each check to a callable without arguments, or where to import it from. It fails by an
            exception, by returning False, or by taking too long.
        timeout: How long all checks together may take; they run side by side.
        fresh: For how long a check's result is used again, so that many askers cost one check.
        details: Name the checks and their outcomes in the answer; otherwise it has the overall status only.

    Raises:
        ConfigError: A path that is not plain, two equal paths, a check's name or callable that is none.
    """

    provides = ()
    requires = ()
    order = (
        Inside("access_log", "L102", "the question would not be logged where the log does not exclude it"),
        *(
            Outside(layer, "L102", _WHY)
            for layer in (
                "hosts",
                "https",
                "basic_auth",
                "bearer_auth",
                "login",
                "oidc",
                "access",
                "dispatch",
                "static",
            )
        ),
    )
    streams = True

    def __init__(
        self,
        app: WSGIApplication,
        *,
        live: str = "/healthz",
        ready: str = "/readyz",
        checks: Mapping[str, Reference] = {},
        timeout: Duration = "2s",
        fresh: Duration = "1s",
        details: bool = True,
    ) -> None:
        for option, path in (("live", live), ("ready", ready)):
            if not isinstance(path, str) or _PATH.fullmatch(path) is None:
                raise ConfigError(option, path, 'a path such as "/healthz" of letters, digits, ".", "_" and "-"')
        if live == ready:
            raise ConfigError("ready", ready, "another path than that of live")
        if not isinstance(details, bool):
            raise ConfigError("details", details, "true or false")
        seconds = duration("timeout", timeout)
        if not seconds:
            raise ConfigError("timeout", timeout, "more than no time")
        wanted = _checks(checks, duration("fresh", fresh))
        inner = direct(app)

        def is_ready() -> dict[str, Outcome]:
            return run_checks(wanted, seconds)

        def wsgi_closure(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
            path = environ.get("PATH_INFO")
            if path == live:
                return _respond(environ, start_response, dict, details)
            if path == ready:
                return _respond(environ, start_response, is_ready, details)
            return inner(environ, start_response)

        self.wsgi_closure = wsgi_closure

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        return self.wsgi_closure(environ, start_response)


def _checks(checks: Mapping[str, Reference], fresh: float) -> dict[str, Check]:
    """Return the checks, their callables imported."""
    if not isinstance(checks, Mapping):
        raise ConfigError("checks", checks, "a table of names and callables")
    result = {}
    for name, value in checks.items():
        if not isinstance(name, str) or _NAME.fullmatch(name) is None:
            raise ConfigError("checks", name, 'a name of letters, digits, ".", "_" and "-"')
        function = reference(f"checks.{name}", value)
        if not callable(function):
            raise ConfigError(f"checks.{name}", value, "a callable without arguments")
        result[name] = Check(name, function, fresh)
    return result


def _respond(
    environ: WSGIEnvironment,
    start_response: StartResponse,
    outcomes: Callable[[], dict[str, Outcome]],
    details: bool,
) -> list[bytes]:
    """Answer GET and HEAD with the outcomes, anything else with 405."""
    if environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
        more = (*_HEADERS, ("Allow", "GET, HEAD"))
        return answer(environ, start_response, "405 Method Not Allowed", b"only GET and HEAD\n", more)
    found = outcomes()
    well = all(outcome.status == "pass" for outcome in found.values())
    status = "200 OK" if well else "503 Service Unavailable"
    body = _body(well, found if details else {})
    return answer(environ, start_response, status, body, _HEADERS, content_type="application/json")


def _body(well: bool, outcomes: Mapping[str, Outcome]) -> bytes:
    """Write the answer; names and statuses need no escaping, they were checked or are ours."""
    checks = ",".join(
        f'"{name}":{{"status":"{outcome.status}","ms":{outcome.milliseconds:.1f}}}'
        for name, outcome in outcomes.items()
    )
    more = f',"checks":{{{checks}}}' if checks else ""
    return f'{{"status":"{"pass" if well else "fail"}"{more}}}\n'.encode()

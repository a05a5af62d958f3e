"""Let other origins' pages call this one, by the Fetch standard's CORS protocol.

Answers preflights itself and owns every ``Access-Control-*`` header of the others: what the
app inside sends of them is replaced.

.. code-block:: toml

    [[layer]]
    use         = "cors"
    origins     = ["https://shop.example", { suffix = ".shop.example" }]
    credentials = true
    headers     = ["Content-Type", "X-Requested-With"]

Place it outside ``errors``, so that error answers carry the headers too, and outside every
auth layer: a preflight has no credentials. It protects nothing by itself: the request of
an origin that is not allowed is still carried out; only its answer is hidden from the page.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from types import MethodType
from typing import TYPE_CHECKING, Any, TypeAlias

from lamella.stack.kernel.environ import direct
from lamella.stack.kernel.errors import BadRequestError
from lamella.stack.kernel.options import Duration
from lamella.stack.kernel.order import Outside
from lamella.stack.kernel.paths import canonical_path
from lamella.stack.kernel.patterns import read_policies
from lamella.stack.kernel.response import ExcInfo, Headers, add_vary, answer, refuse

from ._cors_policy import OriginSpec, Policy

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

__all__ = ["CORSMiddleware"]

#: What a preflight's answer depends on (Fetch standard, and Private Network Access).
_PREFLIGHT_VARY = (
    "Vary",
    "Origin, Access-Control-Request-Method, Access-Control-Request-Headers, Access-Control-Request-Private-Network",
)
_VARY = ("Vary", "Origin")
# Most headers of most answers: they need no closer look.
_USUAL = frozenset(
    {"Cache-Control", "Set-Cookie", "ETag", "Last-Modified", "Location", "Date", "X-Content-Type-Options"}
)
# So many origins and preflights are remembered, if they are no longer than this.
_REMEMBERED = 256
_LONGEST = 1024

#: A start_response whose first argument is the outer one.
Start: TypeAlias = "Callable[..., Callable[[bytes], object]]"


class CORSMiddleware:
    """Answer preflights, and tell browsers which origins may read the answers.

    Args:
        app: The application inside.
        origins: Who may read: origins such as ``"https://shop.example"``, ``"https://*.shop.example"``,
            ``{ suffix = ".shop.example" }`` (with ``scheme`` and ``port`` where they are not https and
            443), ``{ regex = "…" }`` (matched as a whole), ``"null"``, or ``"*"`` for all.
        credentials: Let the browser send cookies and credentials. Refused together with ``"*"``,
            ``"null"`` and with a regular expression that does not end in a domain of one's own.
        methods: Methods that may be used; ``"*"`` stands for the standard ones. GET, HEAD and POST
            need no permission in a browser.
        headers: Request headers that may be sent beyond the safelisted ones; ``"*"`` allows what is
            asked for (not with credentials).
        expose: Response headers that the page may read beyond the safelisted ones.
        max_age: How long a browser may keep a preflight's answer; None leaves it to the browser.
        private_network: Let a page of a public network call this one in a private network.
        policies: Other rules for some paths: tables with ``paths`` (patterns on the canonical path)
            and any of the options above; what a table leaves out is taken from here. The most
            specific pattern wins.

    Raises:
        ConfigError: An option is malformed, or would let any origin in with credentials.
    """

    provides = ()
    requires = ()
    order = (
        Outside("errors", "L103", "error answers would carry no CORS headers, and browsers would hide them"),
        *(
            Outside(layer, "L104", "a preflight has no credentials and would be refused")
            for layer in ("basic_auth", "bearer_auth", "login", "oidc", "access", "csrf", "rate_limit")
        ),
    )
    streams = True

    def __init__(
        self,
        app: WSGIApplication,
        *,
        origins: str | Iterable[OriginSpec],
        credentials: bool = False,
        methods: Iterable[str] = ("GET", "HEAD", "POST"),
        headers: str | Iterable[str] = (),
        expose: str | Iterable[str] = (),
        max_age: Duration | None = "10m",
        private_network: bool = False,
        policies: Iterable[Mapping[str, Any]] = (),
    ) -> None:
        general = {
            "origins": _copied(origins),
            "credentials": credentials,
            "methods": _copied(methods),
            "headers": _copied(headers),
            "expose": _copied(expose),
            "max_age": max_age,
            "private_network": private_network,
        }
        self._default = Policy(**general)
        self._special = read_policies("policies", policies, general, lambda table: Policy(**{**general, **table}))
        inner = direct(app)
        closure = _closure(inner, _Ready(self._default))
        special = [(matches, _closure(inner, _Ready(policy))) for matches, policy in self._special]
        self.wsgi_closure = _chooser(special, closure) if special else closure

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        closure = self.wsgi_closure  # a call of an attribute costs more
        return closure(environ, start_response)

    def decide(self, origin: str, path: str, method: str, headers: str = "") -> str:
        """Tell what a page of *origin* may do: ``allowed``, or why it may not. For ``lamella cors``."""
        policy = next((policy for matches, policy in self._special if matches(path)), self._default)
        fields = policy.preflight_fields(origin, method, headers, private=False)
        return fields if isinstance(fields, str) else "allowed"


def _chooser(special: list[tuple[Callable[[str], bool], WSGIApplication]], default: WSGIApplication) -> WSGIApplication:
    """Return what hands a request to the policy of its path."""

    def choose(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        try:
            path = canonical_path(environ)
        except BadRequestError as error:
            return refuse(environ, start_response, error, [_VARY])
        for matches, closure in special:
            if matches(path):
                return closure(environ, start_response)
        return default(environ, start_response)

    return choose


def _closure(inner: WSGIApplication, ready: _Ready) -> WSGIApplication:
    """Return the work of one policy: what an origin gets was made when it first asked."""
    asks_method, bind, starts, refused = "HTTP_ACCESS_CONTROL_REQUEST_METHOD", MethodType, ready.starts, ready.refused

    def wsgi_closure(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if "HTTP_ORIGIN" in environ:
            origin = environ["HTTP_ORIGIN"]
            if asks_method in environ and environ["REQUEST_METHOD"] == "OPTIONS":
                return ready.answer_preflight(environ, start_response, origin)
            try:
                start = starts[origin]
            except KeyError:
                start = ready.start_for(origin)
        else:
            start = refused
        # Bound as a method is: a closure for each request would cost half as much again.
        return inner(environ, bind(start, start_response))

    return wsgi_closure


class _Ready:
    """What one policy says, ready-made for every origin and preflight that was allowed before."""

    __slots__ = ("_policy", "_preflights", "refused", "starts")

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._preflights: dict[tuple[str, str, str, str], Headers] = {}
        #: For an origin that is not allowed, and for none.
        self.refused = _adding(policy.answer_fields(None), vary=not policy.constant)
        #: By origin.
        self.starts: dict[str, Start] = {}

    def start_for(self, origin: str) -> Start:
        """Return what adds the fields of an actual answer, for an origin that is not known."""
        if self._policy.constant:
            return self.refused
        fields = self._policy.answer_fields(origin)
        if not fields:
            return self.refused
        start = _adding(fields, vary=True)
        if len(self.starts) < _REMEMBERED and len(origin) < _LONGEST:
            self.starts[origin] = start
        return start

    def answer_preflight(self, environ: WSGIEnvironment, start_response: StartResponse, origin: str) -> list[bytes]:
        """Allow with 204, refuse with 403 and the reason; the app inside is not asked."""
        method = environ["HTTP_ACCESS_CONTROL_REQUEST_METHOD"]
        headers = environ.get("HTTP_ACCESS_CONTROL_REQUEST_HEADERS", "")
        private = environ.get("HTTP_ACCESS_CONTROL_REQUEST_PRIVATE_NETWORK", "")
        key = (origin, method, headers, private)
        found = self._preflights.get(key)
        if found is None:
            fields = self._policy.preflight_fields(origin, method, headers, private=private == "true")
            if isinstance(fields, str):
                reason = f"CORS: {fields}\n".encode()
                return answer(environ, start_response, "403 Forbidden", reason, [_PREFLIGHT_VARY])
            found = [*fields, _PREFLIGHT_VARY]
            # A browser sends the same few for each page of an app.
            if len(self._preflights) < _REMEMBERED and sum(map(len, key)) < _LONGEST:
                self._preflights[key] = found
        start_response("204 No Content", [*found])
        return [b""]


def _adding(fields: Headers, *, vary: bool) -> Start:
    """Return what adds *fields* to an answer: bind it to a ``start_response``."""
    added, usual = [*fields, _VARY] if vary else fields, _USUAL
    merged: dict[str, Headers] = {}

    def merge(headers: Headers) -> Headers:
        """Replace the app's own CORS headers, and merge its Vary."""
        kept, present = [], ""
        for header in headers:
            name = header[0]
            if name in usual:
                kept.append(header)
                continue
            name = name.lower()
            if vary and name == "vary":
                present = f"{present}, {header[1]}" if present else header[1]
            elif name[:15] != "access-control-":
                kept.append(header)
        found = merged.get(present)
        if found is None:
            found = [*fields, *add_vary([("Vary", present)], "Origin")] if vary else fields
            if len(merged) < _REMEMBERED and len(present) < _LONGEST:
                merged[present] = found
        return kept + found

    def start(
        start_response: StartResponse, status: str, headers: Headers, exc_info: ExcInfo = None, /
    ) -> Callable[[bytes], object]:
        varies = None
        for name, value in headers:
            # Two comparisons cost less than one look-up.
            if name != "Content-Type" and name != "Content-Length" and name not in usual:
                lower = name.lower()
                if vary and lower == "vary" and varies is None and value in merged:
                    varies = name, value
                elif lower == "vary" or lower[:15] == "access-control-":
                    headers = merge(headers)
                    break
        else:
            if varies is None:
                headers = headers + added
            else:  # what merge() does for the one field that it has met before
                headers = headers.copy()
                headers.remove(varies)
                headers += merged[varies[1]]
        if exc_info is None:
            return start_response(status, headers)
        return start_response(status, headers, exc_info)

    return start


def _copied(value: Any) -> Any:
    """A collection as a tuple, so that nothing of the caller's is kept."""
    return value if isinstance(value, (str, bytes, Mapping)) or not isinstance(value, Iterable) else tuple(value)

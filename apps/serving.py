"""How a router answers: the quick way to the rule of a request, the search, and what is answered without a view."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from lamella.stack.kernel.errors import BadRequestError
from lamella.stack.kernel.http import is_token
from lamella.stack.kernel.keys import RECORD, ROUTE, Route
from lamella.stack.kernel.paths import AmbiguousPathError, canonical_path
from lamella.stack.kernel.response import Headers, refuse

from .calls import handle, run
from .http_exceptions import http_exceptions
from .redirects import encode_location
from .requests import Request
from .responses import respond
from .segments import plain_text
from .urls import PATH_SAFE

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment

    from .hooks import Scope
    from .nodes import Node
    from .router import Router
    from .rule_table import RuleTable
    from .rules import Rule
    from .views import View

__all__ = ["Serving"]

_ROUTE = ROUTE.name
_NOT_FOUND: Headers = [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", "14")]
_NOT_ALLOWED: Headers = [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", "23")]


class Serving:
    """Answers the requests of one router.

    Args:
        router: What requests have as ``router``.
        table: Its rules.
        scope: Its hooks and error handlers.
    """

    def __init__(self, router: Router, table: RuleTable, scope: Scope) -> None:
        # A class for each router costs nothing; an attribute set for each request, 2 % of a short answer.
        self._request: Any = type("Request", (Request,), {"__doc__": Request.__doc__, "router": router})
        self._table = table
        self._scope = scope
        # SCRIPT_NAMEs that were found canonical: a handful, the mounts of the stack file.
        self._mounts: set[str] = {""}

    def closure(self) -> Callable[[WSGIEnvironment, StartResponse], Iterable[bytes]]:
        """Return the application. All it refers to is filled later, when rules are added."""
        table, mounts, kind = self._table, self._mounts, self._request
        literal, hosted, root = table.tree.literal, table.hosted, table.tree.root
        search, miss, new, new_tuple = self._search, self._miss, object.__new__, tuple.__new__

        def wsgi_closure(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
            # The quick way: what it accepts is canonical, because each literal is and each fast matcher
            # takes nothing else. Whatever it cannot decide is searched for on the canonical path.
            path: str = environ.get("PATH_INFO", "")
            if hosted or environ.get("SCRIPT_NAME", "") not in mounts:
                return search(environ, start_response)
            node: Any = literal.get(path)
            value: Any = None
            values: tuple[Any, ...] = ()
            if node is None:
                if not path.isascii():
                    return search(environ, start_response)
                segments = path.split("/")
                if segments.pop(0):
                    return search(environ, start_response)
                node = root
                for segment in segments:
                    child = node.literals.get(segment)
                    if child is None:
                        if value is not None:
                            values += (value,)
                        fast = node.fast
                        # The matcher of most variables without its call: 2 % of a short answer.
                        value = segment if fast is plain_text and segment.isalnum() else fast(segment)
                        if value is None:
                            return miss(node, segment, environ, start_response)
                        child = node.child
                    node = child
            method: str = environ["REQUEST_METHOD"]
            rule = node.methods.get(method)
            if rule is None:
                return miss(node, None, environ, start_response)
            positional = rule.positional
            if positional == 0:
                parameters: dict[str, Any] = {}
            elif positional > 0:
                parameters = {rule.names[0]: value}
            else:
                parameters = {**rule.defaults, **dict(zip(rule.names, (*values, value)))}  # noqa: B905 - without one
            environ[_ROUTE] = matched = new_tuple(Route, (rule.pattern, rule.endpoint, parameters))
            if RECORD in environ:  # as ROUTE.set does: behind dispatch this environ is a copy
                environ[RECORD][_ROUTE] = matched
            environ["wsgiorg.routing_args"] = ((), parameters)
            # WebOb's constructor does nothing more for an environ that is a dict: 0.3 instead of 0.5 microseconds.
            request = new(kind)
            request.__dict__["environ"] = environ
            if rule.has_hooks:
                return run(rule.scopes, rule.endpoint, rule.call, parameters, request, start_response)
            try:
                if positional > 0:
                    result = rule.call(request, value)
                elif positional == 0:
                    result = rule.call(request)
                else:
                    result = rule.call(request, **parameters)
            except Exception as error:  # noqa: BLE001 - handlers decide; what none takes is raised again
                result = handle(rule.scopes, request, error)
            return respond(result, environ, start_response, rule.endpoint, method)

        return wsgi_closure

    def _miss(
        self, node: Node, segment: str | None, environ: WSGIEnvironment, start_response: StartResponse
    ) -> Iterable[bytes]:
        """Answer 404 or 405 where *node* alone tells it, else search.

        Args:
            node: Where the quick way ended.
            segment: What it found nothing for; None where the path ends and the method is another.
            environ: The request.
            start_response: The server's.
        """
        if node.sole:
            method: str = environ.get("REQUEST_METHOD", "GET")
            if segment is None:
                if node.methods:
                    node.allow = node.allow or _allow(node.methods)
                    return self._fail(method, node.allow, environ, start_response)
            # A slash more or less at the end changes nothing: the segment stays. The literals are looked at
            # again, because another request may have made them of the rule that waited here.
            elif (
                segment and node.waiting is None and segment not in node.literals and not node.edges and not node.tails
            ):
                try:
                    canonical_path(environ)
                except AmbiguousPathError as error:
                    return refuse(environ, start_response, error)
                return self._fail(method, "", environ, start_response)
        return self._search(environ, start_response)

    def _search(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Find the rule on the canonical path, or answer that there is none."""
        table = self._table
        try:
            path = canonical_path(environ)
            trees = table.trees(environ)
        except BadRequestError as error:
            return refuse(environ, start_response, error)
        method: str = environ.get("REQUEST_METHOD", "GET")
        script: str = environ.get("SCRIPT_NAME", "")
        if script not in self._mounts and len(self._mounts) < 64:
            self._mounts.add(script)
        allowed: set[str] = set()
        if path or not script:
            for tree, values in trees:
                for node, more in tree.find(path or "/"):
                    rule = node.methods.get(method)
                    if rule is not None:
                        return self._serve(rule, values + more, environ, start_response)
                    allowed.update(node.methods)
        if not allowed:
            # The same path but for the slash at its end; "" is the mount itself.
            other = path[:-1] if path.endswith("/") and path != "/" else f"{path}/"
            for tree, values in trees:
                for node, more in tree.find(other):
                    lenient = {key: rule for key, rule in node.methods.items() if rule.slashes != "strict" or not path}
                    rule = lenient.get(method)
                    if rule is None:
                        allowed.update(lenient)
                    elif rule.slashes == "redirect":
                        return self._redirect(other, environ, start_response)
                    else:
                        return self._serve(rule, values + more, environ, start_response)
        return self._fail(method, _allow(allowed) if allowed else "", environ, start_response)

    def _serve(
        self, rule: Rule, values: tuple[Any, ...], environ: WSGIEnvironment, start_response: StartResponse
    ) -> Iterable[bytes]:
        """Let the view of *rule* answer."""
        parameters = {**rule.defaults, **dict(zip(rule.names, values, strict=True))}
        ROUTE.set(environ, Route(rule.pattern, rule.endpoint, parameters))
        environ["wsgiorg.routing_args"] = ((), parameters)
        return run(rule.scopes, rule.endpoint, rule.call, parameters, self._request(environ), start_response)

    def _redirect(self, path: str, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer 308 to *path*, under the same mount and with the same query."""
        location = quote(environ.get("SCRIPT_NAME", "").encode("latin-1"), safe=PATH_SAFE)
        location = encode_location(location + quote(path, safe=PATH_SAFE))
        query: str = environ.get("QUERY_STRING", "")
        if query:
            location += "?" + quote(query.encode("latin-1", "replace"), safe="%!$&'()*+,/:;=?@[]~-._")
        answer = (b"", "308 Permanent Redirect", {"Location": location, "Content-Type": "text/plain; charset=utf-8"})
        return self._own(lambda request: answer, environ, start_response)

    def _fail(
        self, method: str, allow: str, environ: WSGIEnvironment, start_response: StartResponse
    ) -> Iterable[bytes]:
        """Answer OPTIONS, or that there is nothing (404) or not with this method (405)."""
        error: Any
        if not (method.isalpha() and method.isascii()) and not is_token(method):
            return refuse(environ, start_response, BadRequestError("the method is malformed"))
        if not allow:
            if self._scope.is_empty:
                start_response("404 Not Found", [*_NOT_FOUND])
                return [b"404 Not Found\n"] if method != "HEAD" else [b""]
            error = http_exceptions().HTTPNotFound()
        else:
            if method == "OPTIONS":
                options = (None, "204 No Content", {"Allow": allow})
                return self._own(lambda request: options, environ, start_response)
            if self._scope.is_empty:
                start_response("405 Method Not Allowed", [("Allow", allow), *_NOT_ALLOWED])
                return [b"405 Method Not Allowed\n"] if method != "HEAD" else [b""]
            error = http_exceptions().HTTPMethodNotAllowed(headers=[("Allow", allow)])

        def fail(request: Request) -> None:
            raise error

        return self._own(fail, environ, start_response)

    def _own(self, view: View, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer by a view of the router's own, with the router's hooks."""
        return run((self._scope,), "(router)", view, {}, self._request(environ), start_response)


def _allow(methods: Iterable[str]) -> str:
    """Return the Allow field for *methods* (RFC 9110 section 10.2.1)."""
    return ", ".join(sorted({*methods, "OPTIONS"}))

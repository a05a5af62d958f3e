"""A small routing application: patterns, views that take a request, and answers from plain values.

Sets ``lamella.route`` and ``wsgiorg.routing_args``.

>>> from lamella.apps.router import Router
>>> router = Router()
>>> @router.get("/notes/<int:id>")
... def note(request, id):
...     return {"id": id}
>>> router.url_for("note", id=3)
'/notes/3'

A :class:`Router` is a WSGI application: give it to a server, to ``[app]`` of a stack file, or to
any layer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import webob

from lamella.stack.kernel.errors import ConfigError
from lamella.stack.kernel.keys import ROUTE

from .converters import Converter
from .errors import AmbiguousRouteError, UrlError
from .fields import ResponseError
from .files import content_disposition, send_file
from .hooks import Scope
from .host_patterns import HostPattern
from .patterns import PatternCompiler
from .redirects import redirect, safe_target
from .requests import MissingKeyError, Request, safe_filename
from .responses import Response, abort
from .rule_table import RuleTable
from .rules import Inclusion, Rule, included, slash_policy
from .serving import Serving
from .urls import build_url
from .views import View, check_parameters, read_view

if TYPE_CHECKING:
    from os import PathLike
    from wsgiref.types import StartResponse, WSGIEnvironment

    from .templates import Templates

__all__ = [
    "AmbiguousRouteError",
    "Converter",
    "MissingKeyError",
    "Request",
    "Response",
    "ResponseError",
    "Router",
    "Rule",
    "UrlError",
    "abort",
    "content_disposition",
    "redirect",
    "safe_filename",
    "safe_target",
    "send_file",
]

Hook = TypeVar("Hook", bound=Callable[..., Any])
AnyView = TypeVar("AnyView", bound=Callable[..., Any])

_NO_DEFAULTS: dict[str, Any] = {}


class Router:
    """Routes requests to views.

    Args:
        slashes: What to do where a path matches but for the slash at its end: ``"redirect"`` (308 to
            the form of the rule), ``"strict"`` (404) or ``"ignore"`` (serve both).
        converters: Converters of your own: name to a subclass of :class:`Converter`, or to a regular expression.
        domain: The domain to which ``subdomain`` of a rule is relative.
        templates: Folder of Jinja2 templates for :meth:`render` (needs the extra ``templates``), or a
            :class:`~lamella.apps.templates.Templates`.

    Raises:
        ConfigError: One of them is wrong.
    """

    provides = (ROUTE,)

    def __init__(
        self,
        *,
        slashes: str = "redirect",
        converters: Mapping[str, type[Converter] | str] | None = None,
        domain: str | None = None,
        templates: str | PathLike[str] | Templates | None = None,
    ) -> None:
        self._slashes = slash_policy(slashes)
        self._compiler = PatternCompiler(converters)
        self._domain = HostPattern(domain).source if domain is not None else None
        self._templates = _templates(templates)
        self._scope = Scope()
        self._scopes = (self._scope,)
        self._table = RuleTable()
        self._inclusions: list[Inclusion] = []
        self.wsgi_closure = Serving(self, self._table, self._scope).closure()

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        return self.wsgi_closure(environ, start_response)

    # --- rules ----------------------------------------------------------------------------------

    @property
    def routes(self) -> tuple[Rule, ...]:
        """All rules, those of included routers too, in the order they were added."""
        return tuple(self._table.rules)

    def add(
        self,
        pattern: str,
        view: View,
        *,
        methods: Iterable[str] | None = None,
        name: str | None = None,
        defaults: Mapping[str, Any] | None = None,
        host: str | None = None,
        subdomain: str | None = None,
        slashes: str | None = None,
    ) -> None:
        """Add a rule; one view may have several.

        Args:
            pattern: Such as ``/notes/<int:id>``.
            view: Called with the request, and the parameters as keywords. Or a class, whose methods
                ``get``, ``post`` … are called, on a new instance for each request.
            methods: GET only where not given; of a class, its methods. GET brings HEAD, and all
                bring OPTIONS.
            name: For ``url_for``; the name of the view where not given.
            defaults: Values for parameters of the view that the pattern does not have.
            host: The host it is bound to: ``example.com``, ``<tenant>.example.com``, ``*.example.com``.
            subdomain: Same, in front of the router's ``domain``.
            slashes: Another slash policy than the router's.

        Raises:
            AmbiguousRouteError: Another rule matches the same requests.
            ConfigError: Malformed; the name belongs to another view; the view does not take these parameters.
        """
        compiled = self._compiler.compile(pattern)
        host_pattern = self._host(host, subdomain)
        call, methods = read_view(view, methods)
        endpoint = name
        if endpoint is None:
            endpoint = getattr(view, "__name__", None) or type(view).__name__
        elif not isinstance(name, str) or not name or name.startswith(".") or name.endswith("."):
            raise ConfigError("name", name, "text that neither starts nor ends with a dot")
        defaults = dict(defaults) if defaults else _NO_DEFAULTS
        policy = self._slashes if slashes is None else slash_policy(slashes)
        rule = Rule(
            compiled, methods, endpoint, name is not None, view, call, host_pattern, defaults, policy, self._scopes
        )
        taken = set(defaults).intersection(rule.names) if defaults else None
        if taken:
            raise ConfigError("defaults", min(taken), f"names that {rule.pattern} has not")
        self._check(rule, True)
        self._register(rule)

    def route(self, pattern: str, **options: Any) -> Callable[[AnyView], AnyView]:
        """Decorate a view; takes what :meth:`add` takes."""

        def decorate(view: AnyView) -> AnyView:
            self.add(pattern, view, **options)
            return view

        return decorate

    def get(self, pattern: str, **options: Any) -> Callable[[AnyView], AnyView]:
        """Decorate a view for GET (and HEAD)."""
        return self.route(pattern, methods=("GET",), **options)

    def post(self, pattern: str, **options: Any) -> Callable[[AnyView], AnyView]:
        """Decorate a view for POST."""
        return self.route(pattern, methods=("POST",), **options)

    def put(self, pattern: str, **options: Any) -> Callable[[AnyView], AnyView]:
        """Decorate a view for PUT."""
        return self.route(pattern, methods=("PUT",), **options)

    def patch(self, pattern: str, **options: Any) -> Callable[[AnyView], AnyView]:
        """Decorate a view for PATCH."""
        return self.route(pattern, methods=("PATCH",), **options)

    def delete(self, pattern: str, **options: Any) -> Callable[[AnyView], AnyView]:
        """Decorate a view for DELETE."""
        return self.route(pattern, methods=("DELETE",), **options)

    def include(
        self,
        router: Router,
        prefix: str = "",
        *,
        name: str = "",
        host: str | None = None,
        subdomain: str | None = None,
    ) -> None:
        """Include the rules of another router, also those it gets later.

        Its hooks and error handlers stay with its rules, inside this router's.

        Args:
            router: The other; it may be included in several places.
            prefix: In front of its patterns, such as ``/api``; may have variables.
            name: In front of its names: ``api`` makes ``api.note`` of ``note``.
            host: For those of its rules that have none.
            subdomain: Same, in front of this router's ``domain``.

        Raises:
            AmbiguousRouteError: A rule matches what another matches.
            ConfigError: Malformed, or a router that includes this one.
        """
        if not isinstance(router, Router):
            raise ConfigError("router", router, "a Router")
        if router is self or router._includes(self):
            raise ConfigError("router", router, "a router that does not include this one")
        if prefix.endswith("/") or (prefix and not prefix.startswith("/")):
            raise ConfigError("prefix", prefix, 'text such as "/api", without a slash at its end')
        inclusion = Inclusion(self, self._compiler.compile(prefix), self._host(host, subdomain), name)
        rules = [included(rule, inclusion) for rule in router._table.rules]
        for rule in rules:
            self._check(rule, False)
        for rule in rules:
            self._check(rule, True)
            self._register(rule)
        router._inclusions.append(inclusion)

    def add_converter(self, name: str, converter: type[Converter] | str) -> None:
        """Register a converter for the patterns that are added from now on."""
        self._compiler.register(name, converter)

    def _includes(self, router: Router) -> bool:
        return any(found.parent is self or self._includes(found.parent) for found in router._inclusions)

    def _host(self, host: str | None, subdomain: str | None) -> HostPattern | None:
        if subdomain is not None:
            if host is not None:
                raise ConfigError("subdomain", subdomain, "either host or subdomain")
            if self._domain is None:
                raise ConfigError("subdomain", subdomain, "a router with a domain")
            host = f"{subdomain}.{self._domain}" if subdomain else self._domain
        return None if host is None else HostPattern(host)

    def _check(self, rule: Rule, check_names: bool) -> None:
        """Refuse *rule* where it clashes, here or in a router that includes this one."""
        self._table.check(rule, check_names)
        if not self._inclusions:
            check_parameters(rule)
        for inclusion in self._inclusions:
            inclusion.parent._check(included(rule, inclusion), check_names)

    def _register(self, rule: Rule) -> None:
        """Add a rule that was checked, here and in the routers that include this one."""
        self._table.add(rule)
        for inclusion in self._inclusions:
            inclusion.parent._register(included(rule, inclusion))

    # --- hooks and error handlers ---------------------------------------------------------------

    def before(self, hook: Hook) -> Hook:
        """Decorate a hook called with the request, before the view; what it returns, if anything, is the answer."""
        self._scope.before.append(hook)
        self._note_hooks(self._scope)
        return hook

    def after(self, hook: Hook) -> Hook:
        """Decorate a hook called with the request and the answer, a WebOb ``Response``.

        It may change it, or return another. The last one added is called first. Where the view
        returned another WSGI application, status and headers are those of it, and only they can be changed.
        """
        self._scope.after.append(hook)
        self._note_hooks(self._scope)
        return hook

    def teardown(self, hook: Hook) -> Hook:
        """Decorate a hook called with the request and the exception, if any, when all is over.

        That is after the last block of the body, or when the client left. The last one added is called first.
        """
        self._scope.teardown.append(hook)
        self._note_hooks(self._scope)
        return hook

    def error(self, kind: int | type[BaseException]) -> Callable[[Hook], Hook]:
        """Decorate a handler called with the request and the exception; returns what a view may return.

        Args:
            kind: A status, for :func:`abort` and what the router answers itself, or a class of
                exceptions. The handler of 500 also gets exceptions that nothing else handles, after
                they were logged. A handler of ``Exception`` does not get :func:`abort`.

        Raises:
            ConfigError: Neither.
        """

        def decorate(handler: Hook) -> Hook:
            self._scope.is_empty = False
            if isinstance(kind, int):
                self._scope.statuses[kind] = handler
            else:
                self._scope.exceptions[kind] = handler
            return handler

        is_status = isinstance(kind, int) and not isinstance(kind, bool) and 400 <= kind <= 599
        if not is_status and not (isinstance(kind, type) and issubclass(kind, Exception)):
            raise ConfigError("kind", kind, "a status from 400 to 599, or a class of exceptions")
        return decorate

    def _note_hooks(self, scope: Scope) -> None:
        scope.is_empty = False
        for rule in self._table.rules:
            if scope in rule.scopes:
                rule.has_hooks = True
        for inclusion in self._inclusions:
            inclusion.parent._note_hooks(scope)

    # --- URLs and templates ---------------------------------------------------------------------

    def url_for(
        self,
        name: str,
        request: Request | WSGIEnvironment | None = None,
        /,
        *,
        external: bool = False,
        scheme: str | None = None,
        anchor: str | None = None,
        **values: object,
    ) -> str:
        """Return the URL of a view.

        Args:
            name: Its name; one that starts with a dot is relative to the view that serves *request*.
            request: The request that is served: for the prefix the router is mounted under, and the host.
            external: Return an absolute URL. A rule on another host always gives one.
            scheme: Of an absolute URL, where it is another than the request's.
            anchor: The fragment.
            **values: The parameters; those that the pattern has not become the query. None is left out.

        Raises:
            UrlError: No such name, or no rule of it takes these values.
            BadRequestError: An absolute URL is asked for and the request's Host is malformed.
        """
        environ: WSGIEnvironment | None = request.environ if isinstance(request, webob.Request) else request
        return build_url(self._table.names, name, environ, values, external=external, scheme=scheme, anchor=anchor)

    def render(self, request: Request, template: str, /, **context: object) -> str:
        """Render a template of the router's folder; ``request`` and ``url_for`` are there inside.

        Raises:
            ConfigError: The router has no templates.
        """
        if self._templates is None:
            raise ConfigError("templates", None, "a folder")
        return self._templates.render(request, template, **context)


def _templates(value: Any) -> Templates | None:
    """Return the templates; the extra is needed only where there are any."""
    if value is None:
        return None
    from .templates import Templates

    return value if isinstance(value, Templates) else Templates(value)

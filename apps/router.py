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
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, TypeVar, cast
from urllib.parse import quote, urlencode

import webob
import webob.exc

from lamella.stack.kernel.errors import BadRequestError, ConfigError
from lamella.stack.kernel.http import Origin, is_token, parse_host
from lamella.stack.kernel.keys import CLIENT, RECORD, ROUTE, Route
from lamella.stack.kernel.paths import canonical_path
from lamella.stack.kernel.response import Headers, refuse

from .hooks import Ending, Scope, call_after, call_before, call_teardown, end_file, find_handler, http_error
from .requests import MissingKeyError, Request, safe_filename
from .responses import (
    Response,
    ResponseError,
    abort,
    content_disposition,
    encode_location,
    redirect,
    respond,
    safe_target,
    send_file,
)
from .routing import (
    AmbiguousRouteError,
    Converter,
    HostPattern,
    Pattern,
    PatternCompiler,
    Tree,
    UrlError,
    check_methods,
)

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

# WebOb has no annotations.
_exc: Any = webob.exc
_request: Any = Request

View: TypeAlias = Callable[..., Any]
Hook = TypeVar("Hook", bound=Callable[..., Any])
AnyView = TypeVar("AnyView", bound=Callable[..., Any])

_NO_DEFAULTS: dict[str, Any] = {}
_SLASHES = ("redirect", "strict", "ignore")
_VIEW_METHODS = ("get", "head", "post", "put", "patch", "delete", "options", "trace", "query")
_ROUTE = ROUTE.name
# inspect.CO_VARKEYWORDS, CO_COROUTINE and CO_ASYNC_GENERATOR; importing inspect costs more than the router.
_CO_VARKEYWORDS, _CO_ASYNC = 0x08, 0x80 | 0x200


class Rule:
    """One rule: what it matches, and the view that answers.

    Attributes:
        pattern: As written, prefixes of sub-routers included.
        methods: The methods, without the automatic HEAD and OPTIONS.
        endpoint: Name of the view, for ``url_for``.
        view: The view.
        host: The host it is bound to, or None.
        defaults: Values of parameters that the pattern does not have.
        slashes: The slash policy.
    """

    __slots__ = (
        "call",
        "compiled",
        "defaults",
        "endpoint",
        "has_hooks",
        "host",
        "host_pattern",
        "is_named",
        "methods",
        "names",
        "pattern",
        "scopes",
        "slashes",
        "view",
    )

    def __init__(
        self,
        compiled: Pattern,
        methods: tuple[str, ...],
        endpoint: str,
        is_named: bool,
        view: View,
        call: View,
        host_pattern: HostPattern | None,
        defaults: Mapping[str, Any],
        slashes: str,
        scopes: tuple[Scope, ...],
    ) -> None:
        self.compiled = compiled
        self.pattern = compiled.source or "/"
        self.methods = methods
        self.endpoint = endpoint
        self.is_named = is_named
        self.view = view
        self.call = call
        self.host_pattern = host_pattern
        self.host = host_pattern.source if host_pattern is not None else None
        self.defaults = defaults
        self.slashes = slashes
        self.scopes = scopes
        self.has_hooks = False
        for scope in scopes:
            if scope.before or scope.after or scope.teardown:
                self.has_hooks = True
        self.names = compiled.names if host_pattern is None else host_pattern.names + compiled.names

    @property
    def name(self) -> str:
        """Same as :attr:`endpoint`."""
        return self.endpoint

    def __repr__(self) -> str:
        where = f"{self.host or ''}{self.pattern}"
        return f"{','.join(self.methods)} {where} ({self.endpoint})"


class _Inclusion(NamedTuple):
    """Where a sub-router is included."""

    parent: Router
    prefix: Pattern
    host: HostPattern | None
    name: str


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
        self._slashes = _slash_policy(slashes)
        self._compiler = PatternCompiler(converters)
        self._domain = HostPattern(domain).source if domain is not None else None
        self._templates = _templates(templates)
        self._scope = Scope()
        self._scopes = (self._scope,)
        self._rules: list[Rule] = []
        self._names: dict[str, list[Rule]] = {}
        self._inclusions: list[_Inclusion] = []
        self._tree = Tree()
        self._hosted: list[tuple[HostPattern, Tree]] = []
        # The rules of paths without variables, for one lookup instead of a walk.
        self._literal: dict[str, dict[str, Rule]] = {}
        # SCRIPT_NAMEs that were found canonical: a handful, the mounts of the stack file.
        self._mounts: set[str] = {""}
        self.wsgi_closure = self._closure()

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        return self.wsgi_closure(environ, start_response)

    # --- rules ----------------------------------------------------------------------------------

    @property
    def routes(self) -> tuple[Rule, ...]:
        """All rules, those of included routers too, in the order they were added."""
        return tuple(self._rules)

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
        call, methods = _view(view, methods)
        endpoint = name
        if endpoint is None:
            endpoint = getattr(view, "__name__", None) or type(view).__name__
        elif not isinstance(name, str) or not name or name.startswith(".") or name.endswith("."):
            raise ConfigError("name", name, "text that neither starts nor ends with a dot")
        defaults = dict(defaults) if defaults else _NO_DEFAULTS
        policy = self._slashes if slashes is None else _slash_policy(slashes)
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
        inclusion = _Inclusion(self, self._compiler.compile(prefix), self._host(host, subdomain), name)
        rules = [_included(rule, inclusion) for rule in router._rules]
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
        tree = self._tree_of(rule.host_pattern)
        other = tree.conflict(rule.compiled, rule.methods) if tree is not None else None
        if other is not None:
            raise AmbiguousRouteError(rule, other)
        if rule.host_pattern is not None and len(set(rule.names)) != len(rule.names):
            raise ConfigError("pattern", repr(rule), "each name once, in host and path")
        if check_names and rule.is_named:
            for namesake in self._names.get(rule.endpoint, ()):
                if namesake.is_named and namesake.view is not rule.view:
                    raise ConfigError("name", rule.endpoint, f"a name of its own for {rule}; {namesake} has it")
        if not self._inclusions:
            _check_parameters(rule)
        for inclusion in self._inclusions:
            inclusion.parent._check(_included(rule, inclusion), check_names)

    def _register(self, rule: Rule) -> None:
        """Add a rule that was checked, here and in the routers that include this one."""
        tree = self._tree_of(rule.host_pattern)
        if tree is None:
            tree = Tree()
            self._hosted.append((cast("HostPattern", rule.host_pattern), tree))
            self._hosted.sort(key=lambda pair: pair[0].rank)
        node = tree.add(rule.compiled, rule.methods, rule)
        if not rule.names and tree is self._tree and rule.pattern.isascii():
            self._literal[rule.pattern] = node.methods
        self._rules.append(rule)
        self._names.setdefault(rule.endpoint, []).append(rule)
        for inclusion in self._inclusions:
            inclusion.parent._register(_included(rule, inclusion))

    def _tree_of(self, host: HostPattern | None) -> Tree | None:
        if host is None:
            return self._tree
        return next((tree for other, tree in self._hosted if other.key == host.key), None)

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
        for rule in self._rules:
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
        if name.startswith("."):
            route = ROUTE.get(environ) if environ is not None else None
            prefix = route.endpoint.rpartition(".")[0] if route is not None else ""
            name = f"{prefix}{name}" if prefix else name[1:]
        given = {key: value for key, value in values.items() if value is not None}
        rule, path, host = self._build(name, given)
        query = {key: value for key, value in given.items() if key not in rule.names and key not in rule.defaults}
        script = environ.get("SCRIPT_NAME", "") if environ is not None else ""
        url = quote(script.encode("latin-1"), safe="/!$&'()*+,;=:@-._~") + path
        if query:
            url += "?" + urlencode(query, doseq=True)
        if anchor is not None:
            url += "#" + quote(anchor, safe="!$&'()*+,;=:@-._~/?")
        here = _origin(environ) if external or scheme or host is not None else None
        if external or scheme or (host is not None and (here is None or here.host != host)):
            if here is None and host is None:
                raise UrlError(f"an absolute URL of {name!r} needs the request, or a rule with a host")
            there = scheme or (here.scheme if here is not None else "https")
            if there not in ("http", "https"):
                raise UrlError(f"no scheme of a web page: {there!r}")
            port = here.port if here is not None and here.scheme == there else None
            default = 443 if there == "https" else 80
            url = f"{Origin(there, host or cast('Origin', here).host, port or default)}{url}"
        return url

    def _build(self, name: str, values: Mapping[str, object]) -> tuple[Rule, str, str | None]:
        """Find the rule of *name* that takes most of *values*; return it, the path and the host."""
        rules = self._names.get(name)
        if not rules:
            from difflib import get_close_matches

            near = get_close_matches(name, self._names, 1)
            raise UrlError(f"no view is named {name!r}" + (f"; did you mean {near[0]!r}?" if near else ""))
        if any(rule.view is not rules[0].view for rule in rules):
            named = [rule for rule in rules if rule.is_named]
            if not named:
                raise UrlError(f"{name!r} is the name of several views; give them names of their own: {rules}")
            rules = named
        fitting = [rule for rule in rules if _fits(rule, values)]
        # The most specific first: most parameters used, then most of them by defaults.
        fitting.sort(
            key=lambda rule: (-sum(key in values for key in (*rule.names, *rule.defaults)), -len(rule.defaults))
        )
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

    def render(self, request: Request, template: str, /, **context: object) -> str:
        """Render a template of the router's folder; ``request`` and ``url_for`` are there inside.

        Raises:
            ConfigError: The router has no templates.
        """
        if self._templates is None:
            raise ConfigError("templates", None, "a folder")
        return self._templates.render(request, template, **context)

    # --- serving --------------------------------------------------------------------------------

    def _closure(self) -> Callable[[WSGIEnvironment, StartResponse], Iterable[bytes]]:
        """Return the application. All it refers to is filled later, when rules are added."""
        literal, hosted, top, mounts = self._literal, self._hosted, self._tree.top, self._mounts
        search, run, handle = self._search, self._run, self._handle
        new, new_tuple = object.__new__, tuple.__new__

        def wsgi_closure(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
            # The quick way: what it accepts is canonical, because each literal is and each fast matcher
            # takes nothing else. Whatever it cannot decide is searched for on the canonical path.
            path: str = environ.get("PATH_INFO", "")
            if hosted or environ.get("SCRIPT_NAME", "") not in mounts or not path.isascii():
                return search(environ, start_response)
            methods = literal.get(path)
            values: list[Any] = []
            if methods is None:
                node = top
                for segment in path.split("/"):
                    child = node.literals.get(segment)
                    if child is None:
                        value = node.fast(segment)
                        if value is None:
                            return search(environ, start_response)
                        values.append(value)
                        child = node.child
                    node = child  # type: ignore[assignment]
                methods = node.methods
            rule = methods.get(environ.get("REQUEST_METHOD", "GET"))
            if rule is None:
                return search(environ, start_response)
            if not values:
                parameters: dict[str, Any] = {}
            elif len(values) == 1:
                parameters = {rule.names[0]: values[0]}
            else:
                parameters = dict(zip(rule.names, values))  # noqa: B905 - as long as each other
            if rule.defaults:
                parameters = {**rule.defaults, **parameters}
            environ[_ROUTE] = matched = new_tuple(Route, (rule.pattern, rule.endpoint, parameters))
            if RECORD in environ:  # as ROUTE.set does: behind dispatch this environ is a copy
                environ[RECORD][_ROUTE] = matched
            environ["wsgiorg.routing_args"] = ((), parameters)
            # WebOb's constructor does nothing more for an environ that is a dict: 0.3 instead of 0.5 microseconds.
            request = new(Request)
            attributes = request.__dict__
            attributes["environ"] = environ
            attributes["router"] = self
            if rule.has_hooks:
                return run(rule.scopes, rule.endpoint, rule.call, parameters, request, start_response)
            try:
                result = rule.call(request, **parameters)
            except Exception as error:  # noqa: BLE001 - handlers decide; what none takes is raised again
                result = handle(rule.scopes, request, error)
            return respond(result, environ, start_response, rule.endpoint)

        return wsgi_closure

    def _search(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Find the rule on the canonical path, or answer that there is none."""
        try:
            path = canonical_path(environ)
            trees = self._trees(environ) if self._hosted else ((self._tree, ()),)
        except BadRequestError as error:
            return refuse(environ, start_response, error)
        method: str = environ.get("REQUEST_METHOD", "GET")
        script: str = environ.get("SCRIPT_NAME", "")
        if script not in self._mounts and len(self._mounts) < 64:
            self._mounts.add(script)
        if path and not self._hosted:
            only = self._tree.only(path)
            if only is None:
                return self._fail(method, "", environ, start_response)
            if only is not ... and method not in only.methods:
                only.allow = only.allow or _allow(only.methods)
                return self._fail(method, only.allow, environ, start_response)
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

    def _trees(self, environ: WSGIEnvironment) -> tuple[tuple[Tree, tuple[Any, ...]], ...]:
        """Return the trees for the request's host, best first, each with the values of its variables.

        Raises:
            BadRequestError: There are rules with hosts, and the request's is malformed.
        """
        host = parse_host(environ.get("HTTP_HOST") or environ.get("SERVER_NAME", ""))
        if host is None:
            raise BadRequestError("the host is malformed")
        found = [(tree, pattern.match(host.host)) for pattern, tree in self._hosted]
        return (*((tree, values) for tree, values in found if values is not None), (self._tree, ()))

    def _serve(
        self, rule: Rule, values: tuple[Any, ...], environ: WSGIEnvironment, start_response: StartResponse
    ) -> Iterable[bytes]:
        """Let the view of *rule* answer."""
        parameters = {**rule.defaults, **dict(zip(rule.names, values, strict=True))}
        ROUTE.set(environ, Route(rule.pattern, rule.endpoint, parameters))
        environ["wsgiorg.routing_args"] = ((), parameters)
        return self._run(rule.scopes, rule.endpoint, rule.call, parameters, self._request(environ), start_response)

    def _request(self, environ: WSGIEnvironment) -> Request:
        request: Request = _request(environ)
        request.__dict__["router"] = self
        return request

    def _redirect(self, path: str, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer 308 to *path*, under the same mount and with the same query."""
        location = quote(environ.get("SCRIPT_NAME", "").encode("latin-1"), safe="/!$&'()*+,;=:@-._~")
        location = encode_location(location + quote(path, safe="/!$&'()*+,;=:@-._~"))
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
            error = _exc.HTTPNotFound()
        else:
            if method == "OPTIONS":
                options = (None, "204 No Content", {"Allow": allow})
                return self._own(lambda request: options, environ, start_response)
            if self._scope.is_empty:
                start_response("405 Method Not Allowed", [("Allow", allow), *_NOT_ALLOWED])
                return [b"405 Method Not Allowed\n"] if method != "HEAD" else [b""]
            error = _exc.HTTPMethodNotAllowed(headers=[("Allow", allow)])

        def fail(request: Request) -> None:
            raise error

        return self._own(fail, environ, start_response)

    def _own(self, view: View, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer by a view of the router's own, with the router's hooks."""
        return self._run((self._scope,), "(router)", view, {}, self._request(environ), start_response)

    def _run(
        self,
        scopes: tuple[Scope, ...],
        name: str,
        call: View,
        parameters: Mapping[str, Any],
        request: Request,
        start_response: StartResponse,
    ) -> Iterable[bytes]:
        """Call hooks and view, and send the answer."""
        environ = request.environ
        try:
            try:
                result = call_before(scopes, request)
                if result is None:
                    result = call(request, **parameters)
            except Exception as error:  # noqa: BLE001 - handlers decide; what none takes is raised again
                result = self._handle(scopes, request, error)
            hooks = [hook for scope in reversed(scopes) for hook in reversed(scope.after)]
            if hooks:
                result, start_response = call_after(hooks, request, result, start_response, name)
            body = respond(result, environ, start_response, name)
        except BaseException as error:
            call_teardown(scopes, request, error)
            raise
        if not any(scope.teardown for scope in scopes):
            return body
        wrapper = environ.get("wsgi.file_wrapper")
        if isinstance(wrapper, type) and isinstance(body, wrapper) and end_file(body, scopes, request):
            return body
        return Ending(body, scopes, request)

    def _handle(self, scopes: tuple[Scope, ...], request: Request, error: Exception) -> Any:
        """Return what the handler of *error* returns; raise it again where there is none. In an except block."""
        answer = http_error(error)
        for scope in reversed(scopes):
            handler = find_handler(scope, error, answer)
            if handler is not None:
                try:
                    return handler(request, error if not isinstance(error, BadRequestError) else answer)
                except _exc.WSGIHTTPException as raised:
                    return raised
        if answer is not None:
            return answer
        for scope in reversed(scopes):
            handler = scope.statuses.get(500)
            if handler is not None:
                import logging

                path = request.environ.get("PATH_INFO")
                logging.getLogger(__name__).error("exception on %s %r", request.method, path, exc_info=error)
                return handler(request, error)
        raise error


def _allow(methods: Iterable[str]) -> str:
    """Return the Allow field for *methods* (RFC 9110 section 10.2.1)."""
    return ", ".join(sorted({*methods, "OPTIONS"}))


_NOT_FOUND: Headers = [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", "14")]
_NOT_ALLOWED: Headers = [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", "23")]


# --- building ------------------------------------------------------------------------------------


def _slash_policy(value: str) -> str:
    if value not in _SLASHES:
        raise ConfigError("slashes", value, '"redirect", "strict" or "ignore"')
    return value


def _templates(value: Any) -> Templates | None:
    """Return the templates; the extra is needed only where there are any."""
    if value is None:
        return None
    from .templates import Templates

    return value if isinstance(value, Templates) else Templates(value)


def _view(view: Any, methods: Iterable[str] | None) -> tuple[View, tuple[str, ...]]:
    """Return what to call, and the methods."""
    if isinstance(view, type):
        return _class_view(view, methods)
    if not callable(view):
        raise ConfigError("view", view, "a callable that takes the request")
    code = getattr(view, "__code__", None)
    if code is not None and code.co_flags & _CO_ASYNC:
        raise ConfigError("view", view, "a plain function; an async one runs under ASGI")
    return view, ("GET",) if methods is None else check_methods(methods)


def _class_view(view: type, methods: Iterable[str] | None) -> tuple[View, tuple[str, ...]]:
    """Return a function that calls the method of a new instance, and the methods there are."""
    if methods is None:
        methods = [name for name in _VIEW_METHODS if callable(getattr(view, name, None))]
        if not methods:
            raise ConfigError("view", view, "a class with methods such as get() and post()")
    names = check_methods(methods)
    for name in names:
        if not callable(getattr(view, name.lower(), None)):
            raise ConfigError("view", view, f"a class with the method {name.lower()}()")
    attributes = {name: name.lower() for name in names}
    if "GET" in attributes:
        attributes.setdefault("HEAD", "get")

    def call(request: Request, **parameters: Any) -> Any:
        return getattr(view(), attributes[request.environ["REQUEST_METHOD"]])(request, **parameters)

    return call, names


def _check_parameters(rule: Rule) -> None:
    """Refuse a view that does not take what its rule gives. What it lacks, a prefix may still bring."""
    view = rule.view
    code = getattr(view, "__code__", None)
    if code is None or hasattr(view, "__wrapped__"):
        return
    skip = 2 if hasattr(view, "__self__") else 1  # the request, and self of a bound method
    known = code.co_varnames[skip : code.co_argcount + code.co_kwonlyargcount]
    given = {*rule.names, *rule.defaults} if rule.defaults else rule.names
    if not code.co_flags & _CO_VARKEYWORDS:
        for name in given:
            if name not in known:
                raise ConfigError("view", rule.endpoint, f"a view that takes {name!r}, for {rule.pattern}")


def _included(rule: Rule, inclusion: _Inclusion) -> Rule:
    """Return the rule as the including router has it."""
    parent, prefix, host, name = inclusion
    return Rule(
        rule.compiled.under(prefix),
        rule.methods,
        f"{name}.{rule.endpoint}" if name else rule.endpoint,
        rule.is_named,
        rule.view,
        rule.call,
        rule.host_pattern or host,
        rule.defaults,
        rule.slashes,
        (parent._scope, *rule.scopes),
    )


# --- URLs ----------------------------------------------------------------------------------------


def _fits(rule: Rule, values: Mapping[str, object]) -> bool:
    """Tell whether *values* has all parameters, and contradicts no default."""
    if not all(name in values for name in rule.names):
        return False
    return all(values.get(key, default) == default for key, default in rule.defaults.items())


def _origin(environ: WSGIEnvironment | None) -> Origin | None:
    """Return where the client thinks it is, as trusted proxies tell it.

    Raises:
        BadRequestError: The host is malformed.
    """
    if environ is None:
        return None
    client = CLIENT.get(environ)
    scheme: str = client.scheme if client is not None else environ.get("wsgi.url_scheme", "http")
    text: str = client.host if client is not None else environ.get("HTTP_HOST", "")
    host = parse_host(text or f"{environ.get('SERVER_NAME', '')}:{environ.get('SERVER_PORT', '')}")
    if host is None:
        raise BadRequestError("the host is malformed")
    return Origin(scheme, host.host, host.port or (443 if scheme == "https" else 80))

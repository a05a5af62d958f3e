"""Hand each request to the app that is mounted at its path prefix or host.

Sets ``lamella.mount`` (the prefix or host as written here), and for a prefix ``SCRIPT_NAME``,
``PATH_INFO`` and ``lamella.dispatch.original``, on a copy of the environ.

.. code-block:: toml

    [[layer]]
    use = "dispatch"
    mounts = { "/admin" = "wsgiref.simple_server:demo_app" }
    hosts = { "*.api.example" = "wsgiref.simple_server:demo_app" }

Place it innermost: what stands outside applies to every mount. A layer for one mount only belongs
into that mount's own sub-stack.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from lamella.stack.kernel.asgi import as_wsgi
from lamella.stack.kernel.environ import direct
from lamella.stack.kernel.errors import BadRequestError, ConfigError
from lamella.stack.kernel.http import parse_host
from lamella.stack.kernel.keys import MOUNT
from lamella.stack.kernel.mounts import fault_of_mount, innermost, is_a
from lamella.stack.kernel.options import App, Size, choice, size
from lamella.stack.kernel.order import Inside
from lamella.stack.kernel.paths import canonical_path
from lamella.stack.kernel.response import answer, edit_headers, refuse

from ._dispatch import encode_path, fault_of_host, fault_of_prefix, find_host, redirect_target, repair
from ._dispatch_cascade import cascade_of
from ._head import head_as_get
from ._lazy import LazyApp

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from lamella.stack.kernel.response import Headers

__all__ = ["DispatchMiddleware"]

#: Holds the SCRIPT_NAME and PATH_INFO that were shifted, for the app inside; the outer environ keeps them itself.
ORIGINAL = "lamella.dispatch.original"
_KEYS = ("app", "cookies", "relocate", "head")
_UNKNOWN: Final = (None, False)
# How many paths are remembered, and how long a remembered one may be: at most half a megabyte.
_MEMO_SIZE, _MEMO_LENGTH = 1024, 256


class DispatchMiddleware:
    """Mount applications at path prefixes and hosts.

    The longest prefix wins, on segment borders: ``/flask`` takes ``/flask/x`` and never ``/flaskx``.
    The cost does not grow with the number of mounts.

    Args:
        app: Answers what no mount and no host takes.
        mounts: Prefix to app. An app is a callable, or ``"module:attribute"`` (with ``()`` after it: what
            the call returns), which is imported when the first request comes; or a table with ``app``,
            ``cookies`` (``"scope"`` keeps the app's cookies to the mount, ``"keep"`` leaves them),
            ``relocate`` (true: a ``Location`` that forgot the prefix is repaired) and ``head`` (``"get"``:
            HEAD is asked as GET and answered without the content, for an app that knows no HEAD; ``"keep"``).
        hosts: Host to app: ``"api.example"``, ``"api.example:8080"``, or ``"*.example"`` for every name
            below it. Looked at before the prefixes. A table may have ``app`` and ``head``.
        cascade: Apps to try in turn where *app* answers 404 or 405; the last answer stands.
        slash: What a GET of the mount itself without its slash gets: ``"redirect"`` (308 to the mount
            with a slash, because relative links of the page would leave the mount) or ``"pass"``.
        cascade_limit: How much of a request body is kept for the next app of the cascade. Where
            the first app read more, its answer stands.

    Raises:
        ConfigError: A prefix is not of the form ``/a/b``, a host is none, a table has another key,
            an app is neither callable nor a reference, one Django serves two prefixes, or an app was
            made for another prefix (Dash, ``FORCE_SCRIPT_NAME``, ``root_path``).
    """

    provides = (MOUNT,)
    requires = ()
    order = (Inside("proxy", "L105", "the host a client asked for is known only after the trusted proxies were heard"),)
    streams = True

    def __init__(
        self,
        app: WSGIApplication,
        *,
        mounts: Mapping[str, App],
        hosts: Mapping[str, App] = {},
        cascade: Sequence[App] = (),
        slash: str = "redirect",
        cascade_limit: Size = "64 KiB",
    ) -> None:
        slash = choice("slash", slash, ("redirect", "pass"))
        mounted = {prefix: _mount(f"mounts.{prefix}", target) for prefix, target in _table("mounts", mounts).items()}
        for prefix in mounted:
            fault = fault_of_prefix(prefix)
            if fault is not None:
                raise ConfigError("mounts", prefix, fault)
            found = fault_of_mount(mounted[prefix].app, prefix)
            if found is not None:
                raise ConfigError(f"mounts.{prefix}", found.value, found.expected)
        _refuse_two_djangos(app, mounted)
        by_host = _by_host(hosts)
        fallback = cascade_of((direct(app), *_more_apps(cascade)), size("cascade_limit", cascade_limit))

        #: The mounted apps by prefix and by host, for tools that draw the stack.
        self.mounts: Mapping[str, WSGIApplication] = MappingProxyType({p: m.app for p, m in mounted.items()})
        self.hosts: Mapping[str, WSGIApplication] = MappingProxyType({host: m.app for host, m in by_host.items()})
        self.wsgi_closure = _closure(
            fallback,
            _nodes(mounted),
            {host: mount.closure() for host, mount in by_host.items()},
            redirects=slash == "redirect",
        )

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        closure = self.wsgi_closure  # a call of an attribute costs more
        return closure(environ, start_response)


class _Mount:
    """One app under a prefix, and what is repaired in its answers."""

    __slots__ = ("app", "cookies", "head", "relocate")

    def __init__(
        self, app: WSGIApplication, *, cookies: bool = False, relocate: bool = False, head: bool = False
    ) -> None:
        self.app = app
        self.cookies = cookies
        self.relocate = relocate
        self.head = head

    def closure(self) -> WSGIApplication:
        """The app, with the repairs that this mount asks for around it."""
        inner = direct(self.app)
        if self.head:
            inner = head_as_get(inner)
        cookies, relocate = self.cookies, self.relocate
        if not (cookies or relocate):
            return inner

        def repaired(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
            # Noted before the app runs: it may clear its environ.
            asked = {key: environ.get(key, "") for key in ("HTTP_HOST", "SERVER_NAME", "PATH_INFO")}
            mount = encode_path(environ["SCRIPT_NAME"])

            def edit(headers: Headers) -> Headers:
                return repair(headers, mount, asked, cookies=cookies, relocate=relocate)

            return inner(environ, edit_headers(start_response, edit))

        return repaired


# --- options ------------------------------------------------------------------------------------


def _table(option: str, value: object) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise ConfigError(option, value, "a table of names and apps")
    return dict(value)


def _mount(option: str, target: object) -> _Mount:
    """Read one mount: an app, a reference, or a table."""
    if not isinstance(target, Mapping):
        return _Mount(_app(option, target))
    for key in target:
        if key not in _KEYS:
            raise ConfigError(f"{option}.{key}", target[key], "only the keys " + ", ".join(_KEYS))
    if "app" not in target:
        raise ConfigError(option, dict(target), "a table with the key app")
    cookies = choice(f"{option}.cookies", target.get("cookies", "keep"), ("keep", "scope"))
    relocate = target.get("relocate", False)
    if not isinstance(relocate, bool):
        raise ConfigError(f"{option}.relocate", relocate, "true or false")
    head = choice(f"{option}.head", target.get("head", "keep"), ("keep", "get"))
    app = _app(f"{option}.app", target["app"])
    return _Mount(app, cookies=cookies == "scope", relocate=relocate, head=head == "get")


def _app(option: str, target: object) -> WSGIApplication:
    """Return a callable as it is, a reference as an app that is imported on first use."""
    if isinstance(target, str):
        return LazyApp(option, target)
    if not callable(target):
        raise ConfigError(option, target, 'a WSGI application or a reference such as "package.module:application"')
    return as_wsgi(option, target)


def _more_apps(cascade: object) -> list[WSGIApplication]:
    if isinstance(cascade, (str, bytes, Mapping)) or not isinstance(cascade, Iterable):
        raise ConfigError("cascade", cascade, "a list of apps")
    return [direct(_app(f"cascade.{index}", item)) for index, item in enumerate(cascade)]


def _by_host(hosts: Mapping[str, App]) -> dict[str, _Mount]:
    found: dict[str, _Mount] = {}
    for pattern, target in _table("hosts", hosts).items():
        fault = fault_of_host(pattern)
        if fault is not None:
            raise ConfigError("hosts", pattern, fault)
        mount = _mount(f"hosts.{pattern}", target)
        if mount.cookies or mount.relocate:
            raise ConfigError(
                f"hosts.{pattern}", "cookies, relocate", "only app and head: a host has no prefix to repair"
            )
        parsed = parse_host(pattern.removeprefix("*."))
        key = ("*." if pattern.startswith("*.") else "") + str(parsed)
        if key in found:
            raise ConfigError("hosts", pattern, "each host once")
        found[key] = mount
    return found


def _is_django(app: object) -> bool:
    return is_a(innermost(app), "django.core.handlers.wsgi", "WSGIHandler")


def _refuse_two_djangos(root: object, mounted: Mapping[str, _Mount]) -> None:
    """Refuse a second prefix for Django, which keeps the first one it sees in its static URLs for good.

    ``LazySettings`` stores ``STATIC_URL`` with the script name of the process's first request.
    """
    prefixes = [prefix for prefix, mount in mounted.items() if _is_django(mount.app)]
    if prefixes and _is_django(root):
        prefixes.insert(0, "/")
    if len(prefixes) > 1:
        raise ConfigError("mounts", ", ".join(prefixes), "one prefix for Django: a process has one set of settings")
    references: dict[str, str] = {}
    for prefix, mount in mounted.items():
        if isinstance(mount.app, LazyApp):
            mount.app.share(references, prefix, lambda app: "django" if _is_django(app) else None)


# --- requests -----------------------------------------------------------------------------------

#: A prefix's app and spelling, and whether longer prefixes go on from it.
_Node = tuple["tuple[WSGIApplication, str] | None", bool]
#: App, prefix (empty for none), and what is other in its environ.
_Route = tuple["WSGIApplication", str, dict[str, Any]]


def _nodes(mounted: Mapping[str, _Mount]) -> dict[str, _Node]:
    """Each mounted prefix, and each prefix on the way to one."""
    nodes: dict[str, _Node] = {}
    for prefix, mount in mounted.items():
        nodes[prefix] = ((mount.closure(), prefix), nodes.get(prefix, _UNKNOWN)[1])
        at = prefix.rfind("/")
        while at > 0:
            part = prefix[:at]
            nodes[part] = (nodes.get(part, _UNKNOWN)[0], True)
            at = prefix.rfind("/", 0, at)
    return nodes


def _closure(
    fallback: WSGIApplication,
    nodes: Mapping[str, _Node],
    hosts: Mapping[str, WSGIApplication],
    *,
    redirects: bool,
) -> WSGIApplication:
    key = MOUNT.name
    # The canonical path of a path never changes, so what was asked before needs no second look.
    known: dict[str, _Route] = {}

    def route(environ: WSGIEnvironment, path: str, path_info: str, script_name: str) -> _Route:
        """Find the longest prefix of the canonical *path*, and what the mounted app will see."""
        # The prefixes of the path, shortest first, for as long as some mount goes on from there.
        at = path.find("/", 1)
        found, goes_on = nodes.get(path if at < 0 else path[:at], _UNKNOWN)
        while goes_on and at > 0:
            at = path.find("/", at + 1)
            target, goes_on = nodes.get(path if at < 0 else path[:at], _UNKNOWN)
            found = target or found
        if found is None:
            return fallback, "", {}
        app, prefix = found
        # Prefixes are ASCII, so as many characters of the canonical path as of the raw one.
        rest = path_info[len(prefix) :]
        changes: dict[str, Any] = {"SCRIPT_NAME": script_name + prefix, "PATH_INFO": rest}
        if ORIGINAL not in environ:
            changes[ORIGINAL] = MappingProxyType({"SCRIPT_NAME": script_name, "PATH_INFO": path_info})
        return app if rest or not redirects else _with_slash(app), prefix, changes

    def slow_route(environ: WSGIEnvironment) -> _Route:
        """Check and route a request whose path is not known.

        Raises:
            BadRequestError: The path is ambiguous or the Host malformed.
        """
        path_info, script_name = environ.get("PATH_INFO", ""), environ.get("SCRIPT_NAME", "")
        path = canonical_path(environ)
        if hosts and (matched := _match_host(environ, hosts)) is not None:
            environ[key] = matched
            return hosts[matched], "", {}
        found = route(environ, path, path_info, script_name)
        # Without a script name nothing was shifted before, so what is remembered has the original in it.
        if not (script_name or hosts or ORIGINAL in environ) and len(path_info) <= _MEMO_LENGTH:
            if len(known) >= _MEMO_SIZE:
                known.clear()
            known[path_info] = found
        return found

    def wsgi_closure(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        try:
            found = None if environ["SCRIPT_NAME"] else known[environ["PATH_INFO"]]
        except KeyError:  # not known, or absent: PEP 3333 lets servers leave out what is empty
            found = None
        if found is None:
            try:
                found = slow_route(environ)
            except BadRequestError as error:
                return refuse(environ, start_response, error)
        app, prefix, changes = found
        if prefix:
            environ[key] = prefix  # before the copy is made: the log outside tells which mount answered
            environ = environ | changes
        return app(environ, start_response)

    return wsgi_closure


def _with_slash(app: WSGIApplication) -> WSGIApplication:
    """Redirect who asks for the mount itself without its slash; methods that change something go to *app*."""

    def redirect(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
            return app(environ, start_response)
        location = [("Location", redirect_target(environ))]
        return answer(environ, start_response, "308 Permanent Redirect", b"", location)

    return redirect


def _match_host(environ: WSGIEnvironment, hosts: Mapping[str, object]) -> str | None:
    """The key of *hosts* for this request.

    Raises:
        BadRequestError: The Host field is malformed.
    """
    sent: str | None = environ.get("HTTP_HOST")
    asked = parse_host(environ.get("SERVER_NAME", "") if sent is None else sent)
    if asked is None:
        if sent is None:
            return None
        raise BadRequestError("the Host is malformed")
    return find_host(hosts, asked.host, asked.port)

"""Sign in with a form, stay signed in by the session, and send browsers to the form when something inside answers 401.

Sets ``lamella.identity``, ``REMOTE_USER`` and ``AUTH_TYPE`` from ``lamella.session``; answers its own two paths.

.. code-block:: toml

    [[layer]]
    use = "login"
    users = "staff.htpasswd"
    path = "/login"
    logout_path = "/logout"

Place it inside ``session``, which it stands on, and outside ``access``. Not for APIs: they get the plain 401.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MethodType
from typing import TYPE_CHECKING

from lamella.stack.kernel.auth import UNAUTHORIZED, challenging, establish, is_browser, realm_parameter
from lamella.stack.kernel.environ import direct, remove_identity_headers
from lamella.stack.kernel.errors import BadRequestError, ConfigError
from lamella.stack.kernel.keys import IDENTITY, SESSION
from lamella.stack.kernel.options import Duration, FilePath, duration, file_path, flag, one_line, whole_number
from lamella.stack.kernel.order import Inside, Outside
from lamella.stack.kernel.passwords import Users, UsersValue
from lamella.stack.kernel.paths import canonical_path, check_path
from lamella.stack.kernel.response import Headers, answer, edit_headers, refuse, substitute
from lamella.stack.kernel.targets import encode_target

from ._login_form import FORM as FORM
from ._login_form import SIGNED_IN as SIGNED_IN
from ._login_form import LoginForm, Remember
from ._login_page import LOGIN, Template
from ._login_requests import wanted_target
from ._throttle import Throttle

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

__all__ = ["LoginMiddleware"]

# What is needed to tell a browser, and to bring it back.
_ASKED = (
    *("REQUEST_METHOD", "SCRIPT_NAME", "PATH_INFO", "QUERY_STRING"),
    *("HTTP_ACCEPT", "HTTP_SEC_FETCH_MODE", "HTTP_X_REQUESTED_WITH"),
)


class LoginMiddleware:
    """Authenticate by a form over the session.

    Args:
        app: The application inside.
        users: An htpasswd file, read again whenever it changes; a table of user and hash; or a callable
            ``(user, password)`` that returns true, false, or an :class:`~lamella.stack.kernel.keys.Identity`
            (``"module:attribute"`` in a stack file). Who is removed, or gets another password, is signed out.
        path: Where the form is, relative to where the layer is mounted.
        logout_path: Where a POST signs out; a GET asks first.
        home: Where to go after signing in without another target, and after signing out.
        required: Send everybody who is not signed in to the form. Off, what is inside decides: its 401 does.
        roles: The users of each role, for the rules of ``access``.
        title: Heading of the form.
        template: A page of your own with ``{{ action }}``, ``{{ fields }}`` and inputs called ``username``
            and ``password``; see the documentation for the other names.
        attempts: How often a user may fail from one address within *window*; four times that for one address,
            ten times that for one user. Then 429.
        window: See *attempts*.
        remember: How long "keep me signed in" lasts; none for no such box.
        remember_file: SQLite file of the tokens behind it. Each can be revoked, and is replaced when used.
        remember_cookie: Name of the cookie that holds one.
        secure: Send that cookie over TLS only. False for development without TLS.
        allow_weak: Take Apache's ``$apr1$`` (MD5) and ``{SHA}`` hashes too.
        realm: What the challenge to clients that are no browsers names.

    Raises:
        ConfigError: *users* has something that is no hash, a path is none, the template lacks a name,
            or *remember* has no file.
    """

    provides = (IDENTITY,)
    requires = (SESSION,)
    order = (
        Inside("session", "L101", "Who is signed in is kept in the session."),
        Inside("cors", "L104", "A preflight carries no credentials and would be refused."),
        Outside("access", "L119", "Rules on roles need to know who is asking."),
    )
    streams = True

    def __init__(
        self,
        app: WSGIApplication,
        *,
        users: UsersValue,
        path: str = "/login",
        logout_path: str = "/logout",
        home: str = "/",
        required: bool = False,
        roles: Mapping[str, Iterable[str]] | None = None,
        title: str = "Sign in",
        template: FilePath | None = None,
        attempts: int = 5,
        window: Duration = "5m",
        remember: Duration | None = None,
        remember_file: FilePath | None = None,
        remember_cookie: str = "remember",
        secure: bool = True,
        allow_weak: bool = False,
        realm: str = "restricted",
    ) -> None:
        for option, value in (("required", required), ("secure", secure), ("allow_weak", allow_weak)):
            flag(option, value)
        whole_number("attempts", attempts, 1, 1_000_000)
        one_line("title", title)
        form = LoginForm(
            users=Users("users", users, scheme="session", roles=roles, allow_weak=allow_weak),
            path=_own_path("path", path),
            logout_path=_own_path("logout_path", logout_path),
            home=_own_path("home", home),
            title=title,
            page=LOGIN if template is None else Template.read("template", file_path("template", template)),
            throttle=Throttle(attempts, duration("window", window)),
            remember=Remember.configure(remember, remember_file, remember_cookie, secure=secure),
        )
        if path == logout_path:
            raise ConfigError("logout_path", logout_path, "another path than that of the form")
        # No registered scheme fits a form; browsers leave one they do not know alone (RFC 9110 section 11.6.1).
        plain = f'Cookie realm={realm_parameter(realm)}, form-action="{encode_target(path)}"'
        inner, identity_key, start = direct(app), IDENTITY.name, challenging(plain)

        def wsgi_closure(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
            remove_identity_headers(environ)
            try:
                where = canonical_path(environ)
            except BadRequestError as error:
                return refuse(environ, start_response, error)
            if where == path:
                return form.login(environ, start_response)
            if where == logout_path:
                return form.logout(environ, start_response)
            if identity_key not in environ:
                cookies: list[str] = []
                identity = form.who(environ, cookies)
                if cookies:
                    added = [("Set-Cookie", line) for line in cookies]
                    start_response = edit_headers(start_response, lambda headers: [*headers, *added])
                if identity is not None:
                    establish(environ, identity, "login")
                elif required and is_browser(environ):
                    return form.send_there(wanted_target(environ))(environ, start_response)
                elif required:
                    headers = [("WWW-Authenticate", plain), ("Cache-Control", "no-store")]
                    return answer(environ, start_response, UNAUTHORIZED, b"Please sign in.\n", headers)
            start_response = MethodType(start, start_response)
            if "html" not in environ.get("HTTP_ACCEPT", ""):
                return inner(environ, start_response)
            asked = {name: environ[name] for name in _ASKED if name in environ}  # the app may spoil its environ

            def choose(status: str, headers: Headers) -> WSGIApplication | None:
                return form.send_there(wanted_target(asked)) if status.startswith("401") and is_browser(asked) else None

            return substitute(inner, environ, start_response, choose)

        self.wsgi_closure = wsgi_closure

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        return self.wsgi_closure(environ, start_response)


def _own_path(option: str, value: str) -> str:
    """A path of ours, as the canonical path has it."""
    try:
        if not isinstance(value, str) or not value.startswith("/") or not value.isascii() or {*"?#;"} & set(value):
            raise BadRequestError("")
        return check_path(value)
    except BadRequestError:
        raise ConfigError(option, value, 'an ASCII path such as "/login"') from None

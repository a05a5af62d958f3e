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

import hmac
import logging
import secrets
import sqlite3
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, quote, urlencode

from lamella.stack.kernel.auth import (
    UNAUTHORIZED,
    challenge,
    client_address,
    establish,
    is_browser,
    is_user_name,
    realm_parameter,
)
from lamella.stack.kernel.body import BodyReader, body_length
from lamella.stack.kernel.cookies import CookieFormat, find_cookie
from lamella.stack.kernel.environ import direct, remove_identity_headers
from lamella.stack.kernel.errors import BadRequestError, ConfigError
from lamella.stack.kernel.http import Origin, parse_origin, parse_parameters
from lamella.stack.kernel.keys import CLIENT, CSP_NONCE, CSRF, IDENTITY, SESSION, Identity, Session
from lamella.stack.kernel.options import Duration, FilePath, duration, file_path, flag, one_line, whole_number
from lamella.stack.kernel.order import Inside, Outside
from lamella.stack.kernel.passwords import Users, UsersValue
from lamella.stack.kernel.paths import canonical_path, check_path
from lamella.stack.kernel.response import Headers, answer, edit_headers, refuse, substitute
from lamella.stack.kernel.signing import decode_base64url, encode_base64url

from ._login_page import LOGIN, LOGOUT, Template, alert, hidden, remember_box
from ._next_url import encode_target, safe_target
from ._remember import RememberStore
from ._throttle import Throttle

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

__all__ = ["LoginMiddleware"]

_LOG = logging.getLogger("lamella.login")
#: Where the session keeps who is signed in, and the secret of the form.
SIGNED_IN, FORM = "lamella.login", "lamella.login.form"
# Octets of a form with a name, a password and an address.
_MAX_FORM = 16_384
# Octets of the secret that a form's token masks.
_TOKEN = 32
# What is needed to tell a browser, and to bring it back.
_ASKED = (
    *("REQUEST_METHOD", "SCRIPT_NAME", "PATH_INFO", "QUERY_STRING"),
    *("HTTP_ACCEPT", "HTTP_SEC_FETCH_MODE", "HTTP_X_REQUESTED_WITH"),
)
_WRONG = "User name or password is wrong."
_EXPIRED = "This form has expired. Please try again."


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
        form = _Form(
            users=Users("users", users, scheme="session", roles=roles, allow_weak=allow_weak),
            path=_own_path("path", path),
            logout_path=_own_path("logout_path", logout_path),
            home=_own_path("home", home),
            title=title,
            page=LOGIN if template is None else Template.read("template", file_path("template", template)),
            throttle=Throttle(attempts, duration("window", window)),
            remember=_Remember.configure(remember, remember_file, remember_cookie, secure=secure),
        )
        if path == logout_path:
            raise ConfigError("logout_path", logout_path, "another path than that of the form")
        # No registered scheme fits a form; browsers leave one they do not know alone (RFC 9110 section 11.6.1).
        plain = f'Cookie realm={realm_parameter(realm)}, form-action="{encode_target(path)}"'
        inner, identity_key = direct(app), IDENTITY.name

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
                    return form.send_there(_wanted(environ))(environ, start_response)
                elif required:
                    headers = [("WWW-Authenticate", plain), ("Cache-Control", "no-store")]
                    return answer(environ, start_response, UNAUTHORIZED, b"Please sign in.\n", headers)
            start_response = challenge(start_response, plain)
            if "html" not in environ.get("HTTP_ACCEPT", ""):
                return inner(environ, start_response)
            asked = {name: environ[name] for name in _ASKED if name in environ}  # the app may spoil its environ

            def choose(status: str, headers: Headers) -> WSGIApplication | None:
                return form.send_there(_wanted(asked)) if status.startswith("401") and is_browser(asked) else None

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


class _Remember:
    """The longer login: where its tokens are, and the cookie that holds one."""

    def __init__(self, store: RememberStore, cookie: CookieFormat, seconds: int) -> None:
        self.store = store
        self.cookie = cookie
        self.seconds = seconds

    @classmethod
    def configure(cls, lasting: Duration | None, path: FilePath | None, name: str, *, secure: bool) -> _Remember | None:
        try:
            cookie = CookieFormat(name, secure=secure)
        except ConfigError as error:
            option = "remember_cookie" if error.option == "cookie_name" else error.option
            raise ConfigError(option, error.value, error.expected) from None
        if lasting is None:
            if path is not None:
                raise ConfigError("remember_file", path, "remember too: how long it lasts")
            return None
        seconds = int(duration("remember", lasting))
        if seconds < 60:
            raise ConfigError("remember", lasting, "at least a minute")
        if path is None:
            raise ConfigError("remember_file", None, "a file to keep the tokens in, so that each can be revoked")
        return cls(RememberStore(file_path("remember_file", path)), cookie, seconds)


class _Form:
    """The pages, and who is signed in; nothing of a request is kept here."""

    def __init__(
        self,
        *,
        users: Users,
        path: str,
        logout_path: str,
        home: str,
        title: str,
        page: Template,
        throttle: Throttle,
        remember: _Remember | None,
    ) -> None:
        self._users = users
        self._path = path
        self._logout_path = logout_path
        self._home = home
        self._title = title
        self._page = page
        self._throttle = throttle
        self._remember = remember

    # -- who is asking --

    def who(self, environ: WSGIEnvironment, cookies: list[str]) -> Identity | None:
        """Return who is signed in, by session or remembered token; add to *cookies* what the browser must keep."""
        session = SESSION.require(environ)
        record = session.get(SIGNED_IN)
        if record is not None:
            identity = self._from_session(record)
            if identity is not None:
                return identity
            session.pop(SIGNED_IN, None)
        if self._remember is None:
            return None
        token = find_cookie(environ.get("HTTP_COOKIE", ""), self._remember.cookie.name)
        return None if token is None else self._from_token(session, token, self._remember, cookies)

    def _from_session(self, record: object) -> Identity | None:
        """Read what :meth:`_sign_in` wrote; None once the user is gone or has another password."""
        if not isinstance(record, dict):
            return None
        user, stamp, roles = record.get("user"), record.get("stamp"), record.get("roles")
        if not isinstance(user, str) or not isinstance(stamp, str) or not is_user_name(user):
            return None
        current = self._users.stamp(user)
        if current is None or not hmac.compare_digest(current, stamp):
            return None
        claims = record.get("claims")
        known: dict[str, Any] = dict(claims) if isinstance(claims, dict) else {}
        known["auth_time"] = record.get("at")
        known["remembered"] = record.get("remembered") is True
        own = frozenset(role for role in roles if isinstance(role, str)) if isinstance(roles, list) else frozenset()
        return Identity(user, "session", known, self._users.roles(user) | own)

    def _from_token(self, session: Session, token: str, remember: _Remember, cookies: list[str]) -> Identity | None:
        try:
            redeemed = remember.store.redeem(token, time.time())
            if redeemed is None:
                cookies.append(remember.cookie.expired())
                return None
            if self._users.stamp(redeemed.user) != redeemed.stamp:
                remember.store.revoke(token)
                cookies.append(remember.cookie.expired())
                return None
        except sqlite3.Error as error:  # without its file nobody is remembered, and all else works
            _LOG.error("remembered logins cannot be read: %s", type(error).__name__)
            return None
        if redeemed.token:
            cookies.append(remember.cookie.line(redeemed.token, redeemed.left))
        self._sign_in(session, Identity(redeemed.user, "session"), remembered=True)
        return self._from_session(session[SIGNED_IN])

    def _sign_in(self, session: Session, identity: Identity, *, remembered: bool) -> None:
        """Keep who it is, under a new session id: an id that somebody planted before is worth nothing."""
        session.rotate()
        session.pop(FORM, None)
        own = identity.roles - self._users.roles(identity.user)
        session[SIGNED_IN] = {
            "user": identity.user,
            "stamp": self._users.stamp(identity.user) or "",
            "at": int(time.time()),
            "remembered": remembered,
            "roles": [*sorted(own)],
            "claims": dict(identity.claims),
        }

    # -- the form --

    def login(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer the path of the form."""
        method = environ["REQUEST_METHOD"]
        if method in ("GET", "HEAD"):
            query = _fields(environ.get("QUERY_STRING", "")) or {}
            return self._show(environ, start_response, target=query.get("next", ""))
        if method != "POST":
            return _not_allowed(environ, start_response)
        try:
            fields = _read_form(environ)
        except BadRequestError as error:
            return refuse(environ, start_response, error)
        return self._attempt(environ, start_response, fields)

    def _attempt(
        self, environ: WSGIEnvironment, start_response: StartResponse, fields: dict[str, str]
    ) -> Iterable[bytes]:
        session = SESSION.require(environ)
        user, password, target = fields.get("username", ""), fields.get("password", ""), fields.get("next", "")
        ticked = fields.get("remember", "") != ""

        def again(status: str, message: str, headers: Headers | None = None) -> Iterable[bytes]:
            return self._show(
                environ, start_response, status, message, target=target, user=user, ticked=ticked, headers=headers or []
            )

        if not _is_own(environ) or not _token_fits(session, fields.get("token", "")):
            return again("403 Forbidden", _EXPIRED)
        address = client_address(environ)
        wait = self._throttle.begin(user, address)
        if wait:
            headers = [("Retry-After", str(int(wait) + 1))]
            return again("429 Too Many Requests", "Too many attempts. Please wait a few minutes.", headers)
        identity = self._users.check(user, password)
        if identity is None:
            return again("403 Forbidden", _WRONG)
        self._throttle.succeeded(user, address)
        self._sign_in(session, identity, remembered=False)
        cookies = self._keep(identity, ticked)
        return _redirect(self._target(environ, target), cookies)(environ, start_response)

    def _keep(self, identity: Identity, ticked: bool) -> Headers:
        """Give out a remember-me token where the box is ticked."""
        if self._remember is None or not ticked:
            return []
        seconds = self._remember.seconds
        try:
            stamp = self._users.stamp(identity.user) or ""
            token = self._remember.store.issue(identity.user, stamp, seconds, time.time())
        except sqlite3.Error as error:
            _LOG.error("a login cannot be remembered: %s", type(error).__name__)
            return []
        return [("Set-Cookie", self._remember.cookie.line(token, seconds))]

    def _target(self, environ: WSGIEnvironment, sent: str) -> str:
        """Where to go now: where the user was going, if that is on this site; else home."""
        page = _here(environ, self._path)
        return safe_target(sent, _own_origin(environ), page) or _here(environ, self._home)

    def _show(
        self,
        environ: WSGIEnvironment,
        start_response: StartResponse,
        status: str = "200 OK",
        message: str = "",
        *,
        target: str = "",
        user: str = "",
        ticked: bool = False,
        headers: Sequence[tuple[str, str]] = (),
    ) -> Iterable[bytes]:
        session = SESSION.require(environ)
        fields = {"token": _masked(session), **_csrf_field(environ)}
        if target and safe_target(target, _own_origin(environ), _here(environ, self._path)) is not None:
            fields["next"] = target
        values = {
            "title": self._title,
            "action": _here(environ, self._path),
            "fields": hidden(fields),
            "alert": alert(message),
            "user": user if is_user_name(user) else "",
            "remember": remember_box(ticked) if self._remember is not None else "",
        }
        return _send_page(environ, start_response, status, self._page, values, headers)

    def send_there(self, wanted: tuple[str, str]) -> WSGIApplication:
        """Return the application that redirects to the form, with where the user was going."""
        mount, target = wanted
        location = encode_target(quote(mount.encode("latin-1")) + self._path)
        if target:
            location += "?" + urlencode({"next": target}, safe="/")
        return _redirect(location, [])

    # -- leaving --

    def logout(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer the path of logout: a GET asks, a POST does it."""
        method = environ["REQUEST_METHOD"]
        session = SESSION.require(environ)
        if method in ("GET", "HEAD"):
            return self._ask(environ, start_response)
        if method != "POST":
            return _not_allowed(environ, start_response)
        if not _says_own(environ):
            try:
                fields = _read_form(environ)
            except BadRequestError as error:
                return refuse(environ, start_response, error)
            if not _is_own(environ) or not _token_fits(session, fields.get("token", "")):
                return self._ask(environ, start_response, "403 Forbidden", _EXPIRED)
        cookies: Headers = []
        if self._remember is not None:
            token = find_cookie(environ.get("HTTP_COOKIE", ""), self._remember.cookie.name)
            if token is not None:
                cookies = [("Set-Cookie", self._remember.cookie.expired())]
                try:
                    self._remember.store.revoke(token)
                except sqlite3.Error as error:
                    _LOG.error("a remembered login cannot be revoked: %s", type(error).__name__)
        session.invalidate()
        return _redirect(_here(environ, self._home), cookies)(environ, start_response)

    def _ask(
        self, environ: WSGIEnvironment, start_response: StartResponse, status: str = "200 OK", message: str = ""
    ) -> Iterable[bytes]:
        fields = {"token": _masked(SESSION.require(environ)), **_csrf_field(environ)}
        values = {
            "title": "Sign out?",
            "action": _here(environ, self._logout_path),
            "fields": hidden(fields),
            "alert": alert(message),
        }
        return _send_page(environ, start_response, status, LOGOUT, values, ())


# --- answers ------------------------------------------------------------------------------------


def _send_page(
    environ: WSGIEnvironment,
    start_response: StartResponse,
    status: str,
    page: Template,
    values: dict[str, str],
    headers: Sequence[tuple[str, str]],
) -> Iterable[bytes]:
    """Send a page that no other may frame and no cache keeps; it needs no script and nothing from elsewhere."""
    nonce = CSP_NONCE.get(environ)
    if nonce is not None:
        values["nonce"] = f' nonce="{nonce}"'
    style = f" 'sha256-{page.style_hash}'" if page.style_hash else ""
    policy = "frame-ancestors 'none'; base-uri 'none'; form-action 'self'"
    if page in (LOGIN, LOGOUT):
        policy = f"default-src 'none'; style-src{style}; {policy}"
    more = [
        *headers,
        ("Cache-Control", "no-store"),
        ("Content-Security-Policy", policy),
        ("X-Frame-Options", "DENY"),
        ("X-Content-Type-Options", "nosniff"),
        # Not no-referrer: browsers would send "Origin: null" with the form.
        ("Referrer-Policy", "same-origin"),
    ]
    return answer(environ, start_response, status, page.render(values), more, content_type="text/html; charset=utf-8")


def _redirect(location: str, headers: Sequence[tuple[str, str]]) -> WSGIApplication:
    """303: what follows is a GET, whatever this was (RFC 9110 section 15.4.4)."""

    def redirecting(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        more = [("Location", location), ("Cache-Control", "no-store"), *headers]
        return answer(environ, start_response, "303 See Other", b"", more)

    return redirecting


def _not_allowed(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    return answer(
        environ, start_response, "405 Method Not Allowed", b"GET or POST, please.\n", [("Allow", "GET, HEAD, POST")]
    )


# --- requests -----------------------------------------------------------------------------------


def _here(environ: WSGIEnvironment, path: str) -> str:
    """The address of one of our paths, percent-encoded, below where we are mounted."""
    script_name: str = environ.get("SCRIPT_NAME", "")
    return quote(script_name.encode("latin-1")) + encode_target(path)


def _wanted(environ: WSGIEnvironment) -> tuple[str, str]:
    """Where we are mounted, and what the browser asked for; empty where it cannot be asked for again by a link."""
    mount: str = environ.get("SCRIPT_NAME", "")
    if environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
        return mount, ""
    path: str = mount + environ.get("PATH_INFO", "")
    query: str = environ.get("QUERY_STRING", "")
    target = quote(path.encode("latin-1"), safe="/~!$&'()*+,;=:@-._") + (f"?{query}" if query else "")
    return mount, target if len(target) <= 2048 and target.isascii() and target.isprintable() else ""


def _own_origin(environ: WSGIEnvironment) -> Origin | None:
    client = CLIENT.get(environ)
    if client is not None:
        return parse_origin(f"{client.scheme}://{client.host}")
    return parse_origin(f"{environ['wsgi.url_scheme']}://{environ.get('HTTP_HOST', '')}")


def _says_own(environ: WSGIEnvironment) -> bool:
    """Tell whether the browser itself says that the form was on our page."""
    return _is_own(environ) and ("HTTP_SEC_FETCH_SITE" in environ or "HTTP_ORIGIN" in environ)


def _is_own(environ: WSGIEnvironment) -> bool:
    """Tell whether nothing says that another site sent the form (Fetch metadata; RFC 6454 section 7)."""
    site = environ.get("HTTP_SEC_FETCH_SITE")
    if site is not None and site not in ("same-origin", "none"):
        return False
    origin = environ.get("HTTP_ORIGIN")
    return origin is None or parse_origin(origin) == (_own_origin(environ) or "")


def _read_form(environ: WSGIEnvironment) -> dict[str, str]:
    """Read an urlencoded form.

    Raises:
        BadRequestError: It is of another type, too large, cut off, or not UTF-8.
    """
    parsed = parse_parameters(environ.get("CONTENT_TYPE", ""))
    if parsed is None or parsed[0].lower() != "application/x-www-form-urlencoded":
        raise BadRequestError("the form must be urlencoded", "415 Unsupported Media Type")
    length = body_length(environ)
    if length is not None and length > _MAX_FORM:
        raise BadRequestError("the form is too large", "413 Content Too Large")
    octets = BodyReader(environ["wsgi.input"], length).read(_MAX_FORM + 1)
    if len(octets) > _MAX_FORM:
        raise BadRequestError("the form is too large", "413 Content Too Large")
    if length is not None and len(octets) < length:
        raise BadRequestError("the form is cut off")
    fields = _fields(octets.decode("latin-1"))
    if fields is None:
        raise BadRequestError("the form is malformed")
    return fields


def _fields(text: str) -> dict[str, str] | None:
    """The first of each name; None where it is no form in UTF-8."""
    try:
        pairs = parse_qsl(text, keep_blank_values=True, errors="strict", max_num_fields=32)
    except ValueError:
        return None
    fields: dict[str, str] = {}
    for name, value in pairs:
        fields.setdefault(name, value)
    return fields


def _masked(session: Session) -> str:
    """A token for one form, different each time it is shown, so that compression tells nothing of it (BREACH)."""
    kept = session.get(FORM)
    secret = decode_base64url(kept) if isinstance(kept, str) else None
    if secret is None or len(secret) != _TOKEN:
        secret = secrets.token_bytes(_TOKEN)
        session[FORM] = encode_base64url(secret)
    mask = secrets.token_bytes(_TOKEN)
    return encode_base64url(mask + bytes(a ^ b for a, b in zip(mask, secret, strict=True)))


def _token_fits(session: Session, token: str) -> bool:
    """Tell whether *token* masks the secret of this session, in constant time."""
    kept, sent = session.get(FORM), decode_base64url(token)
    secret = decode_base64url(kept) if isinstance(kept, str) else None
    if secret is None or sent is None or len(secret) != _TOKEN or len(sent) != 2 * _TOKEN:
        return False
    plain = bytes(a ^ b for a, b in zip(sent[:_TOKEN], sent[_TOKEN:], strict=True))
    return hmac.compare_digest(plain, secret)


def _csrf_field(environ: WSGIEnvironment) -> dict[str, str]:
    """The field that a ``csrf`` layer outside wants to see."""
    source = CSRF.get(environ)
    return {} if source is None else {source.field: source.token()}

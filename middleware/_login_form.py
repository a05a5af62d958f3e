"""The pages of ``login``, who is signed in, and the longer login."""

from __future__ import annotations

import hmac
import logging
import secrets
import sqlite3
import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from lamella.stack.kernel.auth import client_address, is_user_name
from lamella.stack.kernel.cookies import CookieFormat, find_cookie
from lamella.stack.kernel.errors import BadRequestError, ConfigError
from lamella.stack.kernel.keys import SESSION, Identity, Session
from lamella.stack.kernel.masks import mask, unmask
from lamella.stack.kernel.options import Duration, FilePath, duration, file_path
from lamella.stack.kernel.passwords import Users
from lamella.stack.kernel.response import Headers, refuse
from lamella.stack.kernel.signing import decode_base64url, encode_base64url
from lamella.stack.kernel.targets import encode_target, own_origin, safe_target

from ._login_answers import not_allowed, redirect, send_page
from ._login_page import LOGOUT, Template, alert, hidden, remember_box
from ._login_requests import csrf_field, is_own, own_address, parse_form, read_form, says_own
from ._remember import RememberStore
from ._throttle import Throttle

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

__all__ = ["LoginForm", "Remember"]

_LOG = logging.getLogger("lamella.login")
#: Where the session keeps who is signed in, and the secret of the form.
SIGNED_IN, FORM = "lamella.login", "lamella.login.form"
# Octets of the secret that a form's token masks.
_TOKEN = 32
_WRONG = "User name or password is wrong."
_EXPIRED = "This form has expired. Please try again."


class Remember:
    """The longer login: where its tokens are, and the cookie that holds one."""

    def __init__(self, store: RememberStore, cookie: CookieFormat, seconds: int) -> None:
        self.store = store
        self.cookie = cookie
        self.seconds = seconds

    @classmethod
    def configure(cls, lasting: Duration | None, path: FilePath | None, name: str, *, secure: bool) -> Remember | None:
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


class LoginForm:
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
        remember: Remember | None,
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
            session.clear()
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

    def _from_token(self, session: Session, token: str, remember: Remember, cookies: list[str]) -> Identity | None:
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
        record = session.get(SIGNED_IN)
        if isinstance(record, dict) and record.get("user") != identity.user:
            session.clear()  # what one user left there is not for the next at the same browser
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
            query = parse_form(environ.get("QUERY_STRING", "")) or {}
            return self._show(environ, start_response, target=query.get("next", ""))
        if method != "POST":
            return not_allowed(environ, start_response)
        try:
            fields = read_form(environ)
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

        if not is_own(environ) or not _token_fits(session, fields.get("token", "")):
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
        return redirect(self._target(environ, target), cookies)(environ, start_response)

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
        page = own_address(environ, self._path)
        return safe_target(sent, own_origin(environ), page) or own_address(environ, self._home)

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
        fields = {"token": _masked(session), **csrf_field(environ)}
        if target and safe_target(target, own_origin(environ), own_address(environ, self._path)) is not None:
            fields["next"] = target
        values = {
            "title": self._title,
            "action": own_address(environ, self._path),
            "fields": hidden(fields),
            "alert": alert(message),
            "user": user if is_user_name(user) else "",
            "remember": remember_box(ticked) if self._remember is not None else "",
        }
        return send_page(environ, start_response, status, self._page, values, headers)

    def send_there(self, wanted: tuple[str, str]) -> WSGIApplication:
        """Return the application that redirects to the form, with where the user was going."""
        mount, target = wanted
        location = encode_target(quote(mount.encode("latin-1")) + self._path)
        if target:
            location += "?" + urlencode({"next": target}, safe="/")
        return redirect(location, [])

    # -- leaving --

    def logout(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer the path of logout: a GET asks, a POST does it."""
        method = environ["REQUEST_METHOD"]
        session = SESSION.require(environ)
        if method in ("GET", "HEAD"):
            return self._ask(environ, start_response)
        if method != "POST":
            return not_allowed(environ, start_response)
        if not says_own(environ):
            try:
                fields = read_form(environ)
            except BadRequestError as error:
                return refuse(environ, start_response, error)
            if not is_own(environ) or not _token_fits(session, fields.get("token", "")):
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
        return redirect(own_address(environ, self._home), cookies)(environ, start_response)

    def _ask(
        self, environ: WSGIEnvironment, start_response: StartResponse, status: str = "200 OK", message: str = ""
    ) -> Iterable[bytes]:
        fields = {"token": _masked(SESSION.require(environ)), **csrf_field(environ)}
        values = {
            "title": "Sign out?",
            "action": own_address(environ, self._logout_path),
            "fields": hidden(fields),
            "alert": alert(message),
        }
        return send_page(environ, start_response, status, LOGOUT, values, ())


def _masked(session: Session) -> str:
    """A token for one form, different each time it is shown."""
    kept = session.get(FORM)
    secret = decode_base64url(kept) if isinstance(kept, str) else None
    if secret is None or len(secret) != _TOKEN:
        secret = secrets.token_bytes(_TOKEN)
        session[FORM] = encode_base64url(secret)
    return mask(secret)


def _token_fits(session: Session, token: str) -> bool:
    """Tell whether *token* masks the secret of this session, in constant time."""
    kept, sent = session.get(FORM), unmask(token, _TOKEN)
    secret = decode_base64url(kept) if isinstance(kept, str) else None
    return secret is not None and sent is not None and hmac.compare_digest(sent, secret)

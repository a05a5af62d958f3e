"""Django and REST framework see the user. In a process of its own (tests/test_isolated.py): settings are global."""

from __future__ import annotations

import base64
import importlib
import importlib.util
import json
from typing import Any
from wsgiref.types import WSGIApplication

import pytest

from lamella.middleware.access import AccessMiddleware
from lamella.middleware.basic_auth import BasicAuthMiddleware
from lamella.stack.testing import call, environ


def basic(user: str, password: str) -> str:
    """The header that a browser sends."""
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def behind(app: WSGIApplication, **options: Any) -> WSGIApplication:
    """The app behind a login for whoever says his name twice."""
    return BasicAuthMiddleware(app, users=lambda user, password: user == password, **options)


@pytest.fixture(scope="module")
def django_app() -> Any:
    """One Django with sessions in cookies, users in memory, and both kinds of RemoteUserMiddleware."""
    pytest.importorskip("django")
    settings: Any = importlib.import_module("django.conf").settings

    settings.configure(
        SECRET_KEY="x" * 50,
        ALLOWED_HOSTS=["*"],
        ROOT_URLCONF=__name__,
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "file:auth?mode=memory&cache=shared"}},
        INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "django.contrib.sessions"],
        SESSION_ENGINE="django.contrib.sessions.backends.signed_cookies",
        AUTHENTICATION_BACKENDS=["django.contrib.auth.backends.RemoteUserBackend"],
        MIDDLEWARE=[
            "django.contrib.sessions.middleware.SessionMiddleware",
            "django.contrib.auth.middleware.AuthenticationMiddleware",
        ],
        REST_FRAMEWORK={
            "DEFAULT_AUTHENTICATION_CLASSES": ["rest_framework.authentication.RemoteUserAuthentication"],
            "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAuthenticated"],
        },
    )
    django: Any = importlib.import_module("django")
    django.setup()
    management: Any = importlib.import_module("django.core.management")
    management.call_command("migrate", run_syncdb=True, verbosity=0)
    yield settings
    importlib.import_module("django.db").connection.close()


def _views() -> list[Any]:
    """The URLs of the Django above."""
    http: Any = importlib.import_module("django.http")
    urls: Any = importlib.import_module("django.urls")

    def who(request: Any) -> Any:
        return http.HttpResponse(request.user.get_username() or "nobody")

    patterns = [urls.path("who", who)]
    if importlib.util.find_spec("rest_framework"):
        decorators: Any = importlib.import_module("rest_framework.decorators")
        response: Any = importlib.import_module("rest_framework.response")

        def api(request: Any) -> Any:
            return response.Response({"user": request.user.get_username()})

        api = decorators.api_view(["GET"])(api)
        patterns.append(urls.path("api", api))
    return patterns


def __getattr__(name: str) -> Any:
    """``urlpatterns``, only once Django asks for them."""
    if name == "urlpatterns":
        return _views()
    raise AttributeError(name)


def handler(django_app: Any, remote_user: str) -> Any:
    """A Django with that middleware for REMOTE_USER."""
    handlers: Any = importlib.import_module("django.core.handlers.wsgi")
    utils: Any = importlib.import_module("django.test.utils")
    added = [*django_app.MIDDLEWARE, f"django.contrib.auth.middleware.{remote_user}"]
    with utils.override_settings(MIDDLEWARE=added):  # the handler reads it when it is made
        return handlers.WSGIHandler()


def ask(app: WSGIApplication, path: str, *, cookie: str = "", **headers: Any) -> Any:
    """One request; the answer and its cookie."""
    response = call(app, environ("GET", path, cookie=cookie, **headers))
    cookies = [line.partition(";")[0] for line in response.header_list("Set-Cookie")]
    return response, "; ".join(cookies) or cookie


def test_django_logs_the_remote_user_in_and_out(django_app: Any) -> None:
    """RemoteUserMiddleware follows each request: without credentials nobody is there."""
    app = behind(handler(django_app, "RemoteUserMiddleware"), required=False)

    response, cookie = ask(app, "/who", authorization=basic("alice", "alice"))
    assert response.body == b"alice"
    response, _ = ask(app, "/who", cookie=cookie)
    assert response.body == b"nobody"


def test_django_keeps_a_persistent_remote_user(django_app: Any) -> None:
    """PersistentRemoteUserMiddleware needs the login once; a client cannot claim it by header."""
    app = behind(handler(django_app, "PersistentRemoteUserMiddleware"), required=False)

    response, cookie = ask(app, "/who", authorization=basic("bob", "bob"))
    assert response.body == b"bob"
    response, _ = ask(app, "/who", cookie=cookie)
    assert response.body == b"bob"
    response, _ = ask(app, "/who", remote_user="admin", x_remote_user="admin")
    assert response.body == b"nobody"


def test_rest_framework_knows_the_user(django_app: Any) -> None:
    """RemoteUserAuthentication; its own refusal, a 403, leaves 401 to the rules outside."""
    pytest.importorskip("rest_framework")
    app = handler(django_app, "PersistentRemoteUserMiddleware")
    rules: list[Any] = [{"path": "/api", "allow": "authenticated"}, {"allow": "anonymous"}]

    response, _ = ask(behind(app, required=False), "/api", authorization=basic("carol", "carol"))
    assert json.loads(response.body) == {"user": "carol"}
    response, _ = ask(behind(app, required=False), "/api")
    assert response.code == 403
    response, _ = ask(behind(AccessMiddleware(app, rules=rules), required=False), "/api")
    assert (response.code, response.header("WWW-Authenticate")) == (401, 'Basic realm="restricted", charset="UTF-8"')

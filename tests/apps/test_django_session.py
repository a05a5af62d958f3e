"""A Django project that shares the layer's session. It runs in a process of its own: settings are global."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

PROJECT = textwrap.dedent(
    """
    import sys, types
    import django
    from django.conf import settings

    SECRET = "0123456789abcdefghijklmnopqrstuvwxyzABCDEF"
    settings.configure(
        SECRET_KEY=SECRET,
        ALLOWED_HOSTS=["*"],
        ROOT_URLCONF="urls",
        SESSION_ENGINE="lamella.apps.django_session",
        MESSAGE_STORAGE="django.contrib.messages.storage.session.SessionStorage",
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
        DEFAULT_AUTO_FIELD="django.db.models.AutoField",
        INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "django.contrib.messages"],
        MIDDLEWARE=[
            "django.contrib.sessions.middleware.SessionMiddleware",
            "django.contrib.auth.middleware.AuthenticationMiddleware",
            "django.contrib.messages.middleware.MessageMiddleware",
        ],
    )
    from django.contrib import auth, messages
    from django.http import HttpResponse, StreamingHttpResponse
    from django.urls import path

    def text(value):
        return HttpResponse(str(value), content_type="text/plain")

    def add(request, item):
        request.session.setdefault("cart", []).append(item)
        messages.info(request, f"added {item}")
        return text(",".join(request.session["cart"]))

    def login(request):
        auth.login(request, auth.get_user_model().objects.get(username="alice"))
        request.session.set_expiry(3600)
        return text("")

    def logout(request):
        auth.logout(request)
        return text("")

    urls = types.ModuleType("urls")
    urls.urlpatterns = [
        path("plain", lambda request: text("no session")),
        path("add/<item>", add),
        path("cart", lambda request: text(",".join(request.session.get("cart", [])))),
        path("messages", lambda request: text("|".join(map(str, messages.get_messages(request))))),
        path("login", login),
        path("logout", logout),
        path("user", lambda request: text(request.user)),
        path("key", lambda request: text(request.session.session_key)),
    ]
    sys.modules["urls"] = urls
    django.setup()
    from django.core.management import call_command
    from django.core.wsgi import get_wsgi_application

    call_command("migrate", verbosity=0)
    auth.get_user_model().objects.create_user("alice", password="x")

    from lamella.middleware.session import SessionMiddleware
    from lamella.stack.testing import call, environ

    def check(store):
        app = SessionMiddleware(get_wsgi_application(), secret=SECRET, store=store)
        jar = {}

        def ask(path, cookies=None):
            cookies = jar if cookies is None else cookies
            more = {"cookie": "; ".join(f"{k}={v}" for k, v in cookies.items())} if cookies else {}
            answer = call(app, environ("GET", path, **more))
            for line in answer.header_list("Set-Cookie"):
                name, _, value = line.partition(";")[0].partition("=")
                assert name == "session", line
                jar.pop(name, None) if "Max-Age=0" in line else jar.update({name: value})
            return answer

        plain = ask("/plain")
        assert (plain.header("Set-Cookie"), plain.header("Vary")) == (None, None), plain.headers
        ask("/add/apple")
        assert ask("/add/pear").text == "apple,pear"
        assert ask("/cart").text == "apple,pear"
        assert ask("/messages").text == "added apple|added pear"
        assert ask("/messages").text == ""
        before = dict(jar)
        login = ask("/login")
        assert "; Max-Age=" in login.header("Set-Cookie"), login.headers
        assert jar != before
        assert ask("/user").text == "alice"
        if store != "cookie":
            assert ask("/user", before).text == "AnonymousUser"
            assert len(ask("/key").text) == 64
            stolen = dict(jar)
        ask("/logout")
        assert jar == {}, jar
        assert ask("/user").text == "AnonymousUser"
        if store != "cookie":
            assert ask("/user", stolen).text == "AnonymousUser"

    check("cookie")
    check("memory:")
    from lamella.stack.kernel.errors import MissingLayerError
    try:
        settings.DEBUG_PROPAGATE_EXCEPTIONS = True
        call(get_wsgi_application(), environ("GET", "/cart"))
    except MissingLayerError as error:
        assert "'session'" in str(error)
    else:
        raise AssertionError("no error without the layer")
    print("shared")
    """
)


@pytest.mark.server
def test_shares_the_session_with_login_messages_and_logout() -> None:
    """Django's own login, messages and logout work on the layer's session; the old id is dead after login."""
    done = subprocess.run(
        [sys.executable, "-W", "error::ResourceWarning", "-c", PROJECT],
        capture_output=True,
        text=True,
        timeout=60,
        env=None,
    )

    assert done.stdout.strip() == "shared", done.stderr[-2000:]

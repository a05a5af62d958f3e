"""Django's own CSRF check inside the layer's: both are content with a good request, each refuses for itself."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

# In a process of its own: Django's settings are global.
PROJECT = textwrap.dedent(
    """
    import sys, types
    from urllib.parse import urlencode
    import django
    from django.conf import settings

    settings.configure(
        SECRET_KEY="0123456789abcdefghijklmnopqrstuvwxyzABCDEF",
        ALLOWED_HOSTS=["app.example"],
        ROOT_URLCONF="urls",
        MIDDLEWARE=["django.middleware.csrf.CsrfViewMiddleware"],
    )
    from django.http import HttpResponse
    from django.middleware.csrf import get_token
    from django.urls import path

    calls = []

    def page(request):
        calls.append(request.method)
        if request.method == "GET":
            return HttpResponse(get_token(request))
        sent = request.FILES["file"].size if request.FILES else request.POST["line"]
        return HttpResponse(f"{sent}|{request.environ['lamella.csrf'].field}")

    urls = types.ModuleType("urls")
    urls.urlpatterns = [path("page", page)]
    sys.modules["urls"] = urls
    django.setup()

    from django.core.wsgi import get_wsgi_application
    from lamella.middleware.csrf import CSRFMiddleware
    from lamella.stack.kernel.keys import SESSION
    from lamella.stack.testing import call, environ
    from lamella.stack.testing.fakes import FakeSession
    from lamella.middleware._csrf_token import make_token

    app = CSRFMiddleware(get_wsgi_application())
    session = FakeSession()

    def send(body=b"", kind="application/x-www-form-urlencoded", **headers):
        method = "POST" if body else "GET"
        request = environ(method, "/page", body=body, host="app.example", **headers)
        request["CONTENT_TYPE"] = kind
        request[SESSION.name] = session
        return call(app, request)

    opened = send()
    theirs = opened.text
    cookie = opened.header("Set-Cookie").partition(";")[0].strip()
    ours = make_token(session, "")
    origin = "http://app.example"

    def form(**fields):
        return urlencode({"line": "I was here", **fields}).encode()
    """
)


def run(code: str) -> None:
    """Run *code* after the project, in a process of its own."""
    script = f"import sys; sys.path[:0] = {sys.path!r}\n{PROJECT}\n{textwrap.dedent(code)}"
    finished = subprocess.run(
        [sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, check=False
    )
    assert finished.returncode == 0, finished.stderr


def test_both_checks_are_content_with_a_good_request_and_each_refuses_for_itself() -> None:
    """A browser's word is enough for the layer, Django asks for its token; without that word both tokens are needed."""
    pytest.importorskip("django")
    run(
        """
        # A current browser: the layer needs no token of Django's form.
        answer = send(form(csrfmiddlewaretoken=theirs), origin=origin, cookie=cookie)
        assert (answer.code, answer.text) == (200, "I was here|csrf_token"), answer.text
        # Django's own refusal passes through.
        assert send(form(), origin=origin, cookie=cookie).code == 403
        # Ours comes first.
        calls.clear()
        refused = send(form(csrfmiddlewaretoken=theirs), origin="http://evil.example", cookie=cookie)
        assert (refused.code, calls) == (403, [])
        # An old client: a token for each, and Django reads the form that the layer has looked into.
        assert send(form(csrfmiddlewaretoken=theirs), cookie=cookie).code == 403
        answer = send(form(csrfmiddlewaretoken=theirs, csrf_token=ours), cookie=cookie)
        assert (answer.code, answer.text) == (200, "I was here|csrf_token"), answer.text
        # An upload that is longer than what the layer looks at arrives whole.
        def part(more, value):
            return b'--x\\r\\nContent-Disposition: form-data; ' + more + b"\\r\\n\\r\\n" + value + b"\\r\\n"

        body = part(b'name="csrf_token"', ours.encode()) + part(b'name="csrfmiddlewaretoken"', theirs.encode())
        body += part(b'name="file"; filename="a"', b"z" * 300_000) + b"--x--\\r\\n"
        answer = send(body, "multipart/form-data; boundary=x", cookie=cookie)
        assert (answer.code, answer.text) == (200, "300000|csrf_token"), answer.text
        """
    )

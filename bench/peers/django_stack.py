"""Django, WhiteNoise, django-cors-headers, signed-cookie sessions, and middleware of its own for auth and log."""

from __future__ import annotations

import base64
import hmac
import logging
from pathlib import Path
from typing import Any

import scene


def make(folder: Path) -> Any:
    """Configure Django in this process."""
    scene.prepare(folder)
    import django
    from django.conf import settings

    settings.configure(
        DEBUG=False,
        SECRET_KEY=scene.SECRET,
        ALLOWED_HOSTS=["*"],
        ROOT_URLCONF=__name__,
        INSTALLED_APPS=["corsheaders", "django.contrib.sessions"],
        MIDDLEWARE=[
            f"{__name__}.log",
            "corsheaders.middleware.CorsMiddleware",
            "whitenoise.middleware.WhiteNoiseMiddleware",
            f"{__name__}.sign_in",
            "django.contrib.sessions.middleware.SessionMiddleware",
        ],
        SESSION_ENGINE="django.contrib.sessions.backends.signed_cookies",
        SESSION_COOKIE_NAME="session",
        CORS_ALLOWED_ORIGINS=[scene.ORIGIN],
        CORS_ALLOW_CREDENTIALS=True,
        STATIC_URL="/static/",
        WHITENOISE_ROOT=None,
        STATIC_ROOT=str(folder / "static"),
        USE_TZ=True,
        LOGGING_CONFIG=None,
    )
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logger.addHandler(logging.FileHandler(folder / "access.log"))
    logging.getLogger("django.request").setLevel(logging.CRITICAL)
    django.setup()
    from django.core.wsgi import get_wsgi_application

    return get_wsgi_application()


logger = logging.getLogger("bench.django")


def log(get_response: Any) -> Any:
    def middleware(request: Any) -> Any:
        response = get_response(request)
        logger.info(
            '%s - %s "%s %s" %s "%s"',
            request.META["REMOTE_ADDR"], getattr(request, "who", "-"), request.method, request.get_full_path(),
            response.status_code, request.META.get("HTTP_USER_AGENT"),
        )  # fmt: skip
        return response

    return middleware


def sign_in(get_response: Any) -> Any:
    from django.http import HttpResponse

    def middleware(request: Any) -> Any:
        field = request.META.get("HTTP_AUTHORIZATION", "")
        try:
            user, _, password = base64.b64decode(field[6:]).decode().partition(":")
        except ValueError:
            user = password = ""
        if not (field.startswith("Basic ") and user == scene.USER and hmac.compare_digest(password, scene.PASSWORD)):
            return HttpResponse(status=401, headers={"WWW-Authenticate": f'Basic realm="{scene.REALM}"'})
        request.who = user
        return get_response(request)

    return middleware


def hello(request: Any, name: str) -> Any:
    return _text(f"hello {name}")


def read(request: Any, name: str) -> Any:
    return _text(f"read {request.session.get('value')}")


def write(request: Any, name: str) -> Any:
    session = request.session
    if "user" not in session:
        session.update(scene.SESSION)
    session["value"] = value = scene.next_value()
    return _text(f"wrote {value}")


def _text(text: str) -> Any:
    from django.http import HttpResponse

    return HttpResponse(text, content_type="text/plain")


def __getattr__(name: str) -> Any:
    if name == "urlpatterns":  # Django reads it late, when it is configured
        from django.urls import path

        views = [path(f"app/{view.__name__}/<str:name>", view) for view in (hello, read, write)]
        globals()["urlpatterns"] = views
        return views
    raise AttributeError(name)

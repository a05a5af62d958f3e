"""A Django site in one module: a form, the admin, and the users of the portal."""

from pathlib import Path

from django.conf import settings

HERE = Path(__file__).parent

settings.configure(
    SECRET_KEY="the gallery's own key: a real one comes from the environment",
    ALLOWED_HOSTS=["*"],  # the layer `hosts` decides where the portal has a name
    ROOT_URLCONF=__name__,
    STATIC_URL="/library/static/",
    STATIC_ROOT=HERE / "static_root",
    SESSION_ENGINE="lamella.apps.django_session",  # the portal's session
    AUTHENTICATION_BACKENDS=["portal_users.PortalUsers"],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": HERE / "library.sqlite"}},
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    INSTALLED_APPS=[
        "django.contrib.admin",
        "django.contrib.auth",
        "django.contrib.contenttypes",
        "django.contrib.sessions",
        "django.contrib.messages",
        "django.contrib.staticfiles",
    ],
    MIDDLEWARE=[
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.middleware.csrf.CsrfViewMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
        "django.contrib.auth.middleware.RemoteUserMiddleware",
        "django.contrib.messages.middleware.MessageMiddleware",
    ],
    TEMPLATES=[
        {
            "BACKEND": "django.template.backends.django.DjangoTemplates",
            "APP_DIRS": True,
            "OPTIONS": {
                "context_processors": [
                    "django.template.context_processors.request",
                    "django.contrib.auth.context_processors.auth",
                    "django.contrib.messages.context_processors.messages",
                ]
            },
        }
    ],
)

import django  # noqa: E402

django.setup()

from django.contrib import admin, messages  # noqa: E402
from django.core.wsgi import get_wsgi_application  # noqa: E402
from django.http import HttpResponse  # noqa: E402
from django.shortcuts import redirect  # noqa: E402
from django.template import engines  # noqa: E402
from django.urls import path  # noqa: E402

books = ["Middlemarch"]

PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>Library</title>
<link rel="stylesheet" href="/library/static/admin/css/base.css">
<h1>Library</h1>
<p>You are <b id="user">{{ request.user }}</b>. <a href="/">Portal</a> <a href="{% url 'admin:index' %}">Admin</a></p>
{% for message in messages %}<p role="status">{{ message }}</p>{% endfor %}
<ul>{% for book in books %}<li>{{ book }}</li>{% endfor %}</ul>
<form method="post" action="{% url 'add' %}">
  {% csrf_token %}<input name="title" aria-label="Title" required><button>Add</button>
</form>
</html>"""


def index(request):
    return HttpResponse(engines["django"].from_string(PAGE).render({"books": books}, request))


def add(request):
    books.append(request.POST["title"])
    messages.info(request, "Added.")
    return redirect("index")


urlpatterns = [path("", index, name="index"), path("add", add, name="add"), path("admin/", admin.site.urls)]

application = get_wsgi_application()

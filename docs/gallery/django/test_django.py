"""Django under a prefix: its admin with style, its CSRF check behind a proxy, its redirects."""

from __future__ import annotations

import re
from typing import Any

PREPARE = """
import os, django
os.environ["DJANGO_SETTINGS_MODULE"] = "library.settings"
django.setup()
from django.core.management import call_command
call_command("migrate", verbosity=0)
call_command("collectstatic", interactive=False, verbosity=0)
from django.contrib.auth.models import User
User.objects.create_superuser("ada", password="analytical")
"""


def token(page: str) -> str:
    """The CSRF token of a form."""
    found = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', page)
    assert found is not None
    return found[1]


def test_the_admin_works_under_the_prefix(site: Any) -> None:
    """Sign in, see the list of users, in the admin's own style."""
    assert site.get("/library/admin/").location == "/library/admin/login/?next=/library/admin/"
    page = site.get("/library/admin/login/?next=/library/admin/").text
    form = {"username": "ada", "password": "analytical", "csrfmiddlewaretoken": token(page)}

    answer = site.post("/library/admin/login/?next=/library/admin/", form=form)

    assert answer.location == "/library/admin/"
    assert "/library/admin/auth/user/" in site.get("/library/admin/").text
    for style in re.findall(r'href="(/library/static/[^"]+\.css)"', page):
        assert site.get(style).headers["Content-Type"].startswith("text/css")
    assert '/library/static/admin/css/base.css"' in page


def test_forms_are_checked_and_lead_back(site: Any) -> None:
    """Django's own check, with the scheme and host that the proxy tells."""
    page = site.get("/library/").text
    form = {"title": "Emma", "csrfmiddlewaretoken": token(page)}

    outside = {"X-Forwarded-Proto": "https", "X-Forwarded-Host": "books.example", "Origin": "https://books.example"}
    assert site.post("/library/add", form=form, **outside).location == "/library/"
    assert "<li>Emma</li>" in site.get("/library/").text

    assert site.post("/library/add", form=form, Origin="https://evil.example").status == 403
    assert site.post("/library/add", form={"title": "No token"}).status == 403

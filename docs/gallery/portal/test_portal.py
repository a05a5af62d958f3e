"""The company portal: four frameworks behind one login, one session, one log, one CORS and one policy."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

PREPARE = """
import library
from django.core.management import call_command
call_command("migrate", verbosity=0)
call_command("collectstatic", interactive=False, verbosity=0)
"""
APPS = ("/news/", "/library/", "/figures/", "/weather/")
CHROMIUM = "/usr/bin/chromium"
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
FLAGS += ["--disable-component-update", "--disable-sync"]


def test_nobody_gets_in_without_the_login(site: Any) -> None:
    """A browser is led to the form and back to where it was; others get 401."""
    for path in APPS:
        answer = site.get(path, Accept="text/html")
        assert (answer.status, answer.location) == (303, f"/login?next={path}")
        assert site.get(path).status == 401
    assert site.get("/healthz").status == 200


def test_one_policy_and_one_cors_for_all(site: Any) -> None:
    """Also on what the layers answer themselves."""
    for path in (*APPS, "/static/portal.css", "/library/static/admin/css/base.css", "/nothing"):
        headers = site.get(path).headers
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert len(headers.get_all("Content-Security-Policy")) == 1
    preflight = {"Origin": "https://app.example", "Access-Control-Request-Method": "GET"}
    answer = site("OPTIONS", "/weather/readings/oslo", **preflight)
    assert (answer.status, answer.headers["Access-Control-Allow-Credentials"]) == (204, "true")
    assert site("OPTIONS", "/library/", **preflight).headers["Access-Control-Allow-Origin"] is None


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A real Chromium."""
    if not os.path.exists(CHROMIUM):
        if os.environ.get("CI"):
            pytest.fail("chromium is not installed")
        pytest.skip("chromium is not installed")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        try:
            yield started
        finally:
            started.close()


@pytest.fixture
def page(site: Any, browser: Any) -> Iterator[Any]:
    """A page of a browser that has never been here."""
    context = browser.new_context(base_url=site.url, viewport={"width": 1100, "height": 800})
    opened = context.new_page()
    opened.set_default_timeout(20_000)
    yield opened
    context.close()


@pytest.mark.server
def test_sign_in_once_use_four_apps_sign_out_everywhere(site: Any, page: Any) -> None:
    """In a real Chromium: forms, redirects, static files and cookies under every prefix."""
    pictures = Path(os.environ.get("LAMELLA_SCREENSHOTS", site.folder))
    complaints: list[str] = []
    failed: list[str] = []
    page.on(
        "console", lambda one: complaints.append(f"{one.location['url']}: {one.text}") if one.type == "error" else None
    )
    page.on("response", lambda one: failed.append(f"{one.status} {one.url}") if one.status >= 400 else None)

    page.goto("/news/")
    assert page.url.startswith(f"{site.url}/login?next=")
    assert page.evaluate("getComputedStyle(document.querySelector('main')).borderRadius") == "12px"
    page.screenshot(path=pictures / "login.png")
    page.fill("[name=username]", "ada")
    page.fill("[name=password]", "analytical")
    page.click("button")
    page.wait_for_url(f"{site.url}/news/")

    # Flask: the layer's session, a form, an upload whose redirect forgets the prefix, its own static file
    assert page.inner_text("#user") == "ada"
    assert page.evaluate("getComputedStyle(document.body).borderTopColor") == "rgb(31, 95, 191)"
    page.fill("[name=line]", "Hello <all>")
    page.click("text=Post")
    page.wait_for_selector("[role=status]")
    assert page.inner_text("li") == "ada: Hello <all>"
    page.set_input_files("[name=file]", {"name": "notes.txt", "mimeType": "text/plain", "buffer": b"notes"})
    page.click("text=Upload")
    page.wait_for_selector("text=notes.txt")
    assert page.url == f"{site.url}/news/"
    with page.expect_download() as download:
        page.click("text=notes.txt")
    assert Path(download.value.path()).read_bytes() == b"notes"

    # back to the portal, on to Django: a form with both CSRF checks, the admin in its style
    page.click("text=Portal")
    page.wait_for_selector(".card")
    page.screenshot(path=pictures / "portal.png")
    page.click(".card >> text=Library")
    page.wait_for_url(f"{site.url}/library/")
    assert page.inner_text("#user") == "ada"
    page.fill("[name=title]", "Emma")
    page.click("text=Add")
    page.wait_for_selector("[role=status]")
    assert page.inner_text("ul") == "Middlemarch\nEmma"
    page.click("text=Admin")
    page.wait_for_url(f"{site.url}/library/admin/")
    assert page.inner_text("#site-name") == "Django administration"
    assert page.evaluate("getComputedStyle(document.querySelector('#header')).backgroundColor") == "rgb(65, 118, 144)"
    page.screenshot(path=pictures / "admin.png")
    page.click("a:has-text('Users')")
    page.wait_for_selector("#result_list >> text=ada")

    # Dash: every script is found, a callback answers
    page.goto("/")
    page.click(".card >> text=Figures")
    page.wait_for_url(f"{site.url}/figures/")
    page.wait_for_selector("text=The sum of ten squares is 285.")
    page.wait_for_selector(".js-plotly-plot .bars")
    page.screenshot(path=pictures / "figures.png")

    # FastAPI: a form, a redirect, the docs page with its schema
    page.click("text=Portal")
    page.click(".card >> text=Weather")
    page.wait_for_url(f"{site.url}/weather/")
    assert page.inner_text("#user") == "ada"
    page.fill("[name=city]", "rome")
    page.fill("[name=celsius]", "21")
    page.click("text=Add")
    page.wait_for_selector("text=rome: 21.0 °C")
    assert page.url == f"{site.url}/weather/"
    assert page.evaluate("fetch('/weather/openapi.json').then(r => r.json()).then(s => s.servers[0].url)") == "/weather"

    # one cookie of ours, none that two apps share
    cookies = {one["name"]: one["path"] for one in page.context.cookies()}
    assert cookies == {"portal": "/", "csrftoken": "/"}
    assert complaints == []
    assert failed == []

    # sign out once: every app asks again
    page.goto("/")
    page.click("text=Sign out")
    page.wait_for_load_state()
    for path in APPS:
        page.goto(path)
        assert page.url.startswith(f"{site.url}/login?next="), path

    lines = [json.loads(line) for line in (site.folder / "access.log").read_text().splitlines()]
    mounts = {line.get("mount") for line in lines}
    assert {"/news", "/library", "/figures", "/weather"} <= mounts
    assert {line.get("user") for line in lines if line.get("mount")} >= {"ada"}
    assert len({line["request_id"] for line in lines}) == len(lines)


@pytest.mark.server
def test_a_logout_inside_ends_the_session_of_all(site: Any, page: Any) -> None:
    """The admin's own "Log out" ends the portal's session: it is the same one."""
    page.goto("/library/admin/")
    page.fill("[name=username]", "ada")
    page.fill("[name=password]", "analytical")
    page.click("button")
    page.wait_for_url(f"{site.url}/library/admin/")

    page.click("#logout-form button")
    page.wait_for_load_state()
    page.goto("/news/")

    assert page.url.startswith(f"{site.url}/login?next=")

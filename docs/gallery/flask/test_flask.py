"""Flask under a prefix: blueprints, its own session beside ours, url_for, uploads."""

from __future__ import annotations

from typing import Any


def test_addresses_follow_the_prefix(site: Any) -> None:
    """``url_for`` reads SCRIPT_NAME, so that nothing has to be set."""
    assert site.get("/guestbook").location == "/guestbook/"
    page = site.get("/guestbook/").text

    for address in ('href="/guestbook/static/style.css"', 'action="/guestbook/sign"', 'action="/guestbook/pictures"'):
        assert address in page
    assert "max-width" in site.get("/guestbook/static/style.css").text
    assert site.get("/guestbook/admin/").json == {"entries": 1, "here": "/guestbook/admin/", "root": "/guestbook"}


def test_two_sessions_stand_side_by_side(site: Any) -> None:
    """Flask's is scoped to the mount, ours is for the site; neither disturbs the other."""
    site.cookies.clear()
    counts = [site.get("/guestbook/").text.rpartition("Pages of this app: ")[2] for _ in range(3)]

    assert [one.split("<")[0] for one in counts] == [
        f"{n}. Visits by the session of the stack: {n}." for n in (1, 2, 3)
    ]
    assert site.cookie("session")[1] == "/guestbook"
    assert site.cookie("site")[1] == "/"


def test_forms_redirect_into_the_mount(site: Any) -> None:
    """Also the tutorial's ``redirect("/")``: ``relocate`` repairs it."""
    answer = site.post("/guestbook/sign", form={"name": "Grace", "text": "A moth!"}, follow=True)
    assert "Thank you!" in answer.text
    assert "<b>Grace</b>: A moth!" in answer.text

    assert site.post("/guestbook/admin/1/delete").location == "/guestbook/"
    assert "Grace" not in site.get("/guestbook/").text


def test_uploads_come_through_the_layers(site: Any) -> None:
    """And out again, byte for byte."""
    content = bytes(range(256)) * 20

    answer = site.upload("/guestbook/pictures", "picture", "cat.png", content)

    assert answer.location == "/guestbook/pictures/cat.png"
    picture = site.get(answer.location)
    assert (picture.body, picture.headers["Content-Type"]) == (content, "image/png")
    assert site.upload("/guestbook/pictures", "picture", "big.png", bytes(2_000_000)).status == 413

"""A JSON API whose users have tokens."""

from __future__ import annotations

import base64
import json
from typing import Any

PREPARE = 'import os; os.environ["API_KEY"] = "a key of at least thirty-two bytes, for tests"'


def bearer(site: Any) -> str:
    """The header of a signed-in client."""
    answer = site.post_json("/token", {"user": "ada", "password": "analytical"})
    return f"Bearer {answer.json['token']}"


def test_a_password_is_changed_for_a_token(site: Any) -> None:
    """And the token opens what its roles may."""
    header = bearer(site)
    body = json.dumps({"text": "Hello"}).encode()

    answer = site.send("PUT", "/texts/one", body, Authorization=header, Content_Type="application/json")

    assert (answer.status, answer.json) == (201, {"name": "one", "text": "Hello (ada)"})
    assert site.get("/texts/one", Authorization=header).json["text"] == "Hello (ada)"
    assert site.get("/me", Authorization=header).json == {"user": "ada", "roles": ["editor"], "scheme": "bearer"}


def test_without_a_good_token_the_answer_is_401(site: Any) -> None:
    """None, a forged one, one that signs itself with nothing."""
    assert site.get("/texts/one").headers["WWW-Authenticate"].startswith("Bearer")
    good = bearer(site).removeprefix("Bearer ")
    head, claims, signature = good.split(".")
    none = base64.urlsafe_b64encode(b'{"alg":"none"}').decode().rstrip("=")
    for token in (f"{head}.{claims}.{signature[::-1]}", f"{none}.{claims}.", "x"):
        assert site.get("/me", Authorization=f"Bearer {token}").status == 401


def test_wrong_requests_are_refused(site: Any) -> None:
    """403 for the password, 400 for what is no JSON, 413 for too much."""
    assert site.post_json("/token", {"user": "ada", "password": "wrong"}).status == 403
    assert site.send("POST", "/token", b"{", Content_Type="application/json").status == 400
    assert site.send("POST", "/token", b"x" * 100_000, Content_Type="application/json").status == 413

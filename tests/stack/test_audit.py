"""The audit: what it says of a stack is what the stack does."""

from __future__ import annotations

from typing import Any
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

import pytest

from lamella.stack import Layer, Stack
from lamella.stack.audit import Audit, _sample, audit
from lamella.stack.testing import call, environ


def app(environ: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:
    """An app without a table of routes."""
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"app"]


def flask_app() -> WSGIApplication:
    """An app with one."""
    flask = pytest.importorskip("flask")
    made = flask.Flask("shop", static_folder=None)
    made.add_url_rule("/", "home", lambda: "home")
    made.add_url_rule("/orders/<int:number>", "order", lambda number: "order", methods=["GET", "POST"])
    built: WSGIApplication = made
    return built


def nobody(user: str, password: str) -> bool:
    """No user is known."""
    return False


def basic(**options: Any) -> Layer:
    """A layer that knows nobody."""
    return Layer("basic_auth", users=nobody, **options)


def table(found: Audit) -> dict[tuple[str, tuple[str, ...]], tuple[str, bool]]:
    """Pattern and methods to who may, and whether that is everybody."""
    return {(row.pattern, row.methods): (row.allow, row.is_open) for row in found.rows}


def test_without_any_layer_all_is_open() -> None:
    """What nothing guards is reachable."""
    found = audit(Stack([], app=app))

    assert table(found) == {("/…", ()): ("anonymous", True)}
    assert found.open == found.rows


def test_a_required_login_closes_everything() -> None:
    """Also without rules; one that is not required closes nothing."""
    assert table(audit(Stack([basic()], app=app))) == {("/…", ()): ("authenticated", False)}
    assert table(audit(Stack([basic(required=False)], app=app))) == {("/…", ()): ("anonymous", True)}


RULES: list[dict[str, Any]] = [
    {"path": "/", "allow": "anonymous"},
    {"path": "/orders/*", "methods": ["GET"], "allow": "authenticated"},
    {"path": "/orders/*", "allow": ["admin"]},
]


def test_lists_each_route_with_its_rule() -> None:
    """The routes of a known router, with the rule that decides for each method."""
    found = audit(Stack([basic(required=False), Layer("access", rules=RULES)], app=flask_app()))

    assert table(found) == {
        ("/", ("GET",)): ("anonymous", True),
        ("/orders/<int:number>", ("GET",)): ("authenticated", False),
        ("/orders/<int:number>", ("POST",)): ("admin", False),
    }
    assert [row.rule for row in found.rows] == ["access[0] /", "access[1] /orders/*", "access[2] /orders/*"]
    assert {row.auth for row in found.rows} == {("basic_auth",)}


def test_lists_an_opaque_app_by_its_rules() -> None:
    """Each pattern of a rule, and all the rest, which is denied by default."""
    found = audit(Stack([basic(required=False), Layer("access", rules=RULES)], app=app))

    assert table(found) == {
        ("/", ()): ("anonymous", True),
        ("/orders/*", ("GET",)): ("authenticated", False),
        ("/orders/*", ("POST",)): ("admin", False),
        ("/…", ()): ("nobody", False),
    }


def test_follows_mounts_and_sub_stacks() -> None:
    """A mount has the layers outside of dispatch, and those of its own stack."""
    staff = Stack([basic()], app=app, name="staff")
    mounts = {"/staff": staff, "/open": app}
    found = audit(Stack([Layer("access_log"), Layer("dispatch", mounts=mounts)], app=app))

    assert [(row.mount, row.pattern, row.is_open) for row in found.rows] == [
        ("/staff", "/staff/…", False),
        ("/open", "/open/…", True),
        ("", "/…", True),
    ]
    assert [row.auth for row in found.rows] == [("staff/basic_auth",), (), ()]
    assert {row.covered["log"] for row in found.rows} == {"access_log"}
    assert {row.covered["csrf"] for row in found.rows} == {""}


def test_rules_inside_a_mount_are_relative_to_it() -> None:
    """They are listed with the prefix."""
    inner = Stack([Layer("access", rules=[{"path": "/a", "allow": "anonymous"}])], app=app, name="inner")
    found = audit(Stack([Layer("dispatch", mounts={"/m": inner})], app=app))

    assert {row.pattern: row.allow for row in found.rows} == {"/m/a": "anonymous", "/m/…": "nobody", "/…": "anonymous"}


def test_a_layer_out_of_scope_covers_nothing() -> None:
    """A login for one path leaves the rest open."""
    stack = Stack([basic(when={"paths": ["/orders/*"]})], app=flask_app())

    assert [row.pattern for row in audit(stack).open] == ["/"]


def test_tells_hosts_apart() -> None:
    """Rules on hosts make a row for each, and one for all others."""
    rules = [{"hosts": ["a.example", "*.b.example"], "allow": "anonymous"}, {"allow": "staff"}]
    found = audit(Stack([Layer("access", rules=rules)], app=app))

    assert {row.host: row.allow for row in found.rows if row.pattern == "/…"} == {
        "a.example": "anonymous",
        "*.b.example": "anonymous",
        "": "staff",
    }


def test_a_rule_for_tokens_only_is_no_open_door() -> None:
    """Who may is read with every way of being known."""
    rules = [
        {"path": "/api/*", "scheme": "bearer", "allow": "client"},
        {"path": "/api/*", "scheme": "https", "allow": []},
    ]
    (row, *_) = audit(Stack([Layer("access", rules=rules)], app=app)).rows

    assert (row.pattern, row.allow, row.is_open) == ("/api/*", "client", False)


@pytest.mark.parametrize(
    "layers",
    [
        [],
        [basic()],
        [basic(required=False), Layer("access", rules=RULES)],
        [
            Layer(
                "access",
                rules=[{"path": "/orders/0", "allow": "anonymous"}, {"methods": ["POST"], "allow": "anonymous"}],
            )
        ],
        [basic(when={"except": ["/"]})],
    ],
)
def test_what_it_calls_open_is_open(layers: list[Layer]) -> None:
    """Each row, asked for without a login, is answered as the audit says."""
    stack = Stack(layers, app=flask_app())

    for row in audit(stack).rows:
        for method in row.methods or ("GET", "POST"):
            code = call(stack, environ(method, _sample(row.pattern))).code
            assert (code not in (401, 403)) == row.is_open, row


def test_the_hash_of_a_password_is_masked() -> None:
    """A table of users shows no hash, neither in settings nor in a repr."""
    hashed = "$5$rounds=1000$saltsaltsaltsalt$" + "a" * 43
    layer = Layer("basic_auth", users={"alice": hashed})

    assert hashed not in repr(layer)
    assert hashed not in repr(layer.settings)

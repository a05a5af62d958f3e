"""BasicAuthMiddleware: who gets in, what is inside sees, and what the network may send."""

from __future__ import annotations

import base64
import random
import time
from typing import Any
from wsgiref.types import WSGIApplication

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lamella.middleware.basic_auth import BasicAuthMiddleware, decode_credentials
from lamella.stack.kernel.errors import ConfigError
from lamella.stack.kernel.keys import IDENTITY, Identity
from lamella.stack.testing import RecordingApp, call, environ, lint

# alice-password and bob-password, hashed cheaply.
ALICE = "$2y$04$e4lT0444YXMjQ4suE0Gz5.qSPOlXb2K8L5N2UbhV0EqO1s0a0WUjy"
USERS = {"alice": ALICE}
CHALLENGE = 'Basic realm="restricted", charset="UTF-8"'


def basic(user: str, password: str) -> str:
    """The header that a browser sends."""
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


GOOD = basic("alice", "alice-password")
CONTRACT = {"headers": {"authorization": GOOD}}


def layer(app: WSGIApplication, **options: Any) -> WSGIApplication:
    """The layer under test, with the linter on both of its sides."""
    options.setdefault("users", USERS)
    return lint(BasicAuthMiddleware(lint(app), **options))


def test_tells_the_app_who_is_asking() -> None:
    """Right credentials become an identity, REMOTE_USER and AUTH_TYPE; the header is used up."""
    app = RecordingApp()

    response = call(layer(app, roles={"staff": ["alice"]}), environ("GET", "/", authorization=GOOD))

    assert response.code == 200
    assert IDENTITY.require(app.environ) == Identity("alice", "basic", {}, frozenset({"staff"}))
    assert (app.environ["REMOTE_USER"], app.environ["AUTH_TYPE"]) == ("alice", "basic")
    assert "HTTP_AUTHORIZATION" not in app.environ


def test_leaves_the_header_when_told() -> None:
    """An app inside that checks the same users can have the credentials too."""
    app = RecordingApp()

    call(layer(app, consume=False), environ("GET", "/", authorization=GOOD))

    assert app.environ["HTTP_AUTHORIZATION"] == GOOD


@pytest.mark.parametrize(
    "sent",
    [
        None,
        "",
        "Basic",
        "Basic ",
        "Basic YWRtaW4=",
        "Basic !!!!",
        "Basic gICA",
        basic("alice", "wrong"),
        basic("nobody", "alice-password"),
        basic("", ""),
        basic("alice\r\nX: y", "alice-password"),
        basic("alice", "alice-password\0"),
        GOOD.rstrip("="),
        GOOD + "=",
        GOOD + "," + GOOD,
        GOOD + " x",
        "Basic " + "A" * 100_000,
        "Bearer abc",
        "Negotiate " + GOOD,
    ],
)
def test_refuses_whatever_proves_nobody(sent: str | None) -> None:
    """No, malformed and wrong credentials alike: 401, our challenge, and nothing inside is asked."""
    app = RecordingApp()
    headers: dict[str, Any] = {} if sent is None else {"authorization": sent}

    response = call(layer(app), environ("GET", "/", **headers))

    assert (response.code, response.header("WWW-Authenticate")) == (401, CHALLENGE)
    assert response.header("Cache-Control") == "no-store"
    assert app.called == 0


@pytest.mark.parametrize("scheme", ["basic", "BASIC", "bAsIc ", "basic  "])
def test_reads_the_scheme_without_case(scheme: str) -> None:
    """Schemes are compared without case, with any number of spaces behind (RFC 9110 section 11.4)."""
    sent = scheme + GOOD.removeprefix("Basic")

    assert call(layer(RecordingApp()), environ("GET", "/", authorization=sent)).code == 200


def test_passes_everything_on_when_not_required() -> None:
    """Without credentials, or with wrong ones, the request is anonymous; a 401 from inside is challenged."""
    attempts: list[dict[str, Any]] = [{}, {"authorization": basic("alice", "wrong")}, {"authorization": "Bearer x"}]
    for headers in attempts:
        app = RecordingApp()
        response = call(layer(app, required=False), environ("GET", "/", **headers))
        assert (response.code, response.header("WWW-Authenticate")) == (200, None)
        assert IDENTITY.get(app.environ) is None
        assert app.environ.get("HTTP_AUTHORIZATION") == headers.get("authorization")


@pytest.mark.parametrize("late", [False, True])
def test_adds_its_challenge_to_a_401_from_inside(late: bool) -> None:
    """The app's own challenge stays; ours comes in a field of its own."""
    app = RecordingApp(
        status="401 Unauthorized",
        headers=[("Content-Type", "text/plain"), ("WWW-Authenticate", "Custom x")],
        late=late,
    )

    response = call(layer(app, required=False), environ("GET", "/"))

    assert response.header_list("WWW-Authenticate") == ["Custom x", CHALLENGE]


def test_challenges_once_however_often_it_is_stacked() -> None:
    """Two layers with one realm are one challenge."""
    app = RecordingApp(status="401 Unauthorized")

    response = call(layer(layer(app, required=False), required=False), environ("GET", "/"))

    assert response.header_list("WWW-Authenticate") == [CHALLENGE]


def test_never_overwrites_an_identity_from_outside() -> None:
    """The layer outside was first, so it wins, and no password is asked for."""
    app = RecordingApp()
    request = environ("GET", "/", authorization=GOOD)
    IDENTITY.set(request, Identity("carol", "bearer"))

    response = call(layer(app), request)

    assert response.code == 200
    assert IDENTITY.require(app.environ).user == "carol"


def test_the_first_of_two_layers_that_knows_the_user_wins() -> None:
    """With two files of users, the outer not required, either one lets in."""
    app = RecordingApp()
    inner = BasicAuthMiddleware(app, users=lambda user, password: password == "inner")
    outer = BasicAuthMiddleware(inner, users=USERS, required=False, roles={"outer": ["alice"]})

    assert call(outer, environ("GET", "/", authorization=GOOD)).code == 200
    assert IDENTITY.require(app.environ).roles == {"outer"}
    assert call(outer, environ("GET", "/", authorization=basic("bob", "inner"))).code == 200
    assert IDENTITY.require(app.environ).user == "bob"
    assert call(outer, environ("GET", "/", authorization=basic("bob", "x"))).code == 401


@pytest.mark.parametrize("name", ["remote_user", "x_remote_user", "x_forwarded_user", "x_forwarded_email", "auth_type"])
@pytest.mark.parametrize("required", [True, False])
def test_removes_what_a_client_could_pose_with(name: str, required: bool) -> None:
    """Headers that name a user never reach the app, with or without credentials."""
    app = RecordingApp()
    headers: dict[str, Any] = {name: "admin", "authorization": GOOD if required else ""}
    request = environ("GET", "/", **headers)

    call(layer(app, required=required), request)

    assert "admin" not in app.environ.values()


def test_keeps_what_the_server_had_put_there() -> None:
    """A REMOTE_USER of the server gives way to the proven user, and is kept beside."""
    app = RecordingApp()

    call(layer(app), environ("GET", "/", authorization=GOOD, REMOTE_USER="root", AUTH_TYPE="x"))

    assert app.environ["REMOTE_USER"] == "alice"
    assert app.environ["lamella.basic_auth.original"] == {"REMOTE_USER": "root", "AUTH_TYPE": "x"}


def test_credentials_are_utf_8() -> None:
    """User and password of any script; REMOTE_USER is its UTF-8 octets, as WSGI has strings."""
    app = RecordingApp()
    seen = []

    def users(user: str, password: str) -> bool:
        seen.append((user, password))
        return True

    call(layer(app, users=users), environ("GET", "/", authorization=basic("Jürgen Łoś", "pässwörd: 密码")))

    assert seen == [("Jürgen Łoś", "pässwörd: 密码")]
    assert IDENTITY.require(app.environ).user == "Jürgen Łoś"
    assert app.environ["REMOTE_USER"].encode("latin-1").decode() == "Jürgen Łoś"


@pytest.mark.parametrize("user", ["a\u202eb", "a\u200bb", "a\u2028b", "a\x85b", " alice", "a" * 256, "\ufeffalice"])
def test_refuses_a_name_that_could_pose_as_another(user: str) -> None:
    """Bidi overrides, zero width, line separators: a name that logs and people cannot read is none."""
    app = RecordingApp()

    response = call(layer(app, users=lambda user, password: True), environ("GET", "/", authorization=basic(user, "x")))

    assert (response.code, app.called) == (401, 0)


def test_one_text_for_one_pair_of_credentials() -> None:
    """Base64 whose unused bits are not zero is another text for the same octets: refused (RFC 4648 section 3.5)."""
    good = base64.b64encode(b"alice:alice-password").decode()
    twisted = good[:-2] + chr(ord(good[-2]) + 1) + "="

    assert base64.b64decode(twisted) == base64.b64decode(good)
    assert (decode_credentials(good), decode_credentials(twisted)) == (("alice", "alice-password"), None)


def test_works_for_head_and_post() -> None:
    """A refusal has no body on HEAD, and the method changes nothing else."""
    response = call(layer(RecordingApp()), environ("HEAD", "/"))
    assert (response.code, response.body) == (401, b"")
    assert call(layer(RecordingApp()), environ("POST", "/", body=b"x")).code == 401


@pytest.mark.parametrize("realm", ['say "hi"', "back\\slash", "two words"])
def test_quotes_the_realm(realm: str) -> None:
    """The realm is a quoted-string (RFC 9110 section 11.5)."""
    from lamella.stack.kernel.http import parse_parameters

    response = call(layer(RecordingApp(), realm=realm), environ("GET", "/"))
    value = str(response.header("WWW-Authenticate"))
    quoted = value.removeprefix("Basic ").replace(', charset="UTF-8"', "")

    assert parse_parameters("x;" + quoted) == ("x", {"realm": realm})


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"realm": "a\nb"}, "realm"),
        ({"realm": "Köln"}, "realm"),
        ({"realm": None}, "realm"),
        ({"required": "no"}, "required"),
        ({"consume": 1}, "consume"),
        ({"cache": "soon"}, "cache"),
        ({"users": {"alice": "alice-password"}}, r"users\.alice: expected a password hash .* not \*\*\*"),
        ({"users": "/no/such/file"}, "users"),
        ({"users": None}, "users"),
    ],
)
def test_refuses_a_wrong_option_at_build(options: dict[str, Any], expected: str) -> None:
    """Each mistake names its option; a password written for a hash is not shown."""
    with pytest.raises(ConfigError, match=expected) as caught:
        layer(RecordingApp(), **options)

    assert "alice-password" not in str(caught.value)


def test_shows_no_credentials(caplog: pytest.LogCaptureFixture) -> None:
    """Neither the answer, nor a log record, nor a repr holds password or header."""
    built = BasicAuthMiddleware(RecordingApp(), users=USERS)
    with caplog.at_level(0):
        refused = call(built, environ("GET", "/", authorization=basic("alice", "hunter2")))

    shown = caplog.text + repr(built) + repr(vars(built)) + refused.text + str(refused.headers)
    assert "hunter2" not in shown
    assert ALICE not in shown


def test_ten_thousand_random_headers_are_all_refused() -> None:
    """Random bytes, random base64, random schemes: always 401, never an exception."""
    app = RecordingApp()
    built = BasicAuthMiddleware(app, users=lambda user, password: False)
    generator = random.Random(4)
    schemes = ["Basic", "basic", "Bearer", "Digest", "", "Basic Basic", "\x00", "Ba sic"]
    for _ in range(10_000):
        octets = generator.randbytes(generator.randrange(40))
        value = base64.b64encode(octets).decode() if generator.random() < 0.5 else octets.decode("latin-1")
        sent = generator.choice(schemes) + generator.choice([" ", "", "  ", "\t"]) + value
        assert call(built, environ("GET", "/", authorization=sent)).code == 401
    assert app.called == 0


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet=st.characters(max_codepoint=255), max_size=60))
def test_decoding_never_raises(value: str) -> None:
    """Any latin-1 text is a pair or nothing, and a pair encodes back to the very same text."""
    pair = decode_credentials(value)

    assert pair is None or base64.b64encode(":".join(pair).encode()).decode() == value


@pytest.mark.timing
@pytest.mark.parametrize("hostile", ["Basic " + " " * 100_000 + "\x00", "A" * 100_000, "Basic " + "=" * 100_000])
def test_hostile_headers_cost_nothing(hostile: str) -> None:
    """100 kB of anything is refused in linear time."""
    built = layer(RecordingApp())

    started = time.thread_time()
    assert call(built, environ("GET", "/", authorization=hostile)).code == 401
    assert time.thread_time() - started < 0.15

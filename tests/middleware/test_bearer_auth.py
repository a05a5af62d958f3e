"""BearerAuthMiddleware: tokens of every kind, their keys, and what an attacker makes of them."""

from __future__ import annotations

import hashlib
import json
import logging
import random
import threading
import time
import warnings
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any
from wsgiref.types import WSGIApplication

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from joserfc import jwe, jwk, jws
from joserfc.errors import SecurityWarning

from lamella.middleware import _jwks
from lamella.middleware._jwk import ALGORITHMS, InvalidKeyError, read_jwks, read_keys
from lamella.middleware._jwks import KeysUnavailableError, RemoteKeys
from lamella.middleware._jwt import TokenError, verify_jws
from lamella.middleware.bearer_auth import BearerAuthMiddleware
from lamella.stack.kernel.errors import ConfigError
from lamella.stack.kernel.keys import IDENTITY, Identity
from lamella.stack.kernel.options import Secret
from lamella.stack.testing import RecordingApp, call, environ, lint

SECRET = "0123456789abcdef0123456789abcdef"
HMAC = jwk.OctKey.import_key(SECRET)
FUTURE = 4_102_444_800
CLAIMS = {"sub": "alice", "exp": FUTURE, "iss": "https://idp.example", "aud": "shop"}
API_KEY = "ci-key-0123456789"
DIGEST = hashlib.sha256(API_KEY.encode()).hexdigest()

CONTRACT = {
    "options": {"algorithms": [], "tokens": {DIGEST: "ci"}},
    "headers": {"authorization": f"Bearer {API_KEY}"},
}


def sign(claims: Any = CLAIMS, header: Any = None, key: Any = HMAC, **changes: Any) -> str:
    """A token, signed whatever it says."""
    if isinstance(claims, dict):
        claims = json.dumps({**claims, **changes})
    header = header or {"alg": "HS256"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SecurityWarning)  # the name "EdDSA" is old, and still what most tokens say
        return jws.serialize_compact(header, claims, key, algorithms=list(ALGORITHMS), registry=_LAX)


class _Lax(jws.JWSRegistry):
    """Signs any header: tests need tokens that no honest issuer makes."""

    def check_header(self, header: Any) -> None:
        pass


_LAX = _Lax(algorithms=list(ALGORITHMS))


def layer(app: WSGIApplication, **options: Any) -> WSGIApplication:
    """The layer under test, with the linter on both of its sides."""
    if "tokens" not in options and "jwks_url" not in options:
        options.setdefault("keys", SECRET)
    options.setdefault("algorithms", ["HS256"] if "keys" in options else [])
    return lint(BearerAuthMiddleware(lint(app), **options))


def ask(app: WSGIApplication, token: str) -> Any:
    """One request with a token."""
    return call(app, environ("GET", "/", authorization=f"Bearer {token}"))


ISSUED: dict[str, Any] = {"issuer": "https://idp.example", "audience": "shop"}


def test_tells_the_app_who_is_asking() -> None:
    """The claims of a right token become the identity; the header is used up."""
    app = RecordingApp()

    response = ask(layer(app, **ISSUED), sign(roles=["editor", 5]))

    assert response.code == 200
    identity = IDENTITY.require(app.environ)
    assert (identity.user, identity.scheme, identity.roles) == ("alice", "bearer", frozenset({"editor"}))
    assert identity.claims["iss"] == "https://idp.example"
    assert (app.environ["REMOTE_USER"], app.environ["AUTH_TYPE"]) == ("alice", "bearer")
    assert "HTTP_AUTHORIZATION" not in app.environ


def test_leaves_the_token_when_told() -> None:
    """An app that calls other services on behalf of the user keeps it."""
    app = RecordingApp()
    token = sign()

    ask(layer(app, consume=False, **ISSUED), token)

    assert app.environ["HTTP_AUTHORIZATION"] == f"Bearer {token}"


@pytest.mark.parametrize(
    ("sent", "code", "error"),
    [
        (None, 401, None),
        ("Basic YTpi", 401, None),
        ("Bearer", 400, "invalid_request"),
        ("Bearer ", 400, "invalid_request"),
        ("Bearer a b", 400, "invalid_request"),
        ("Bearer  a", 400, "invalid_request"),
        ("Bearer a,Bearer b", 400, "invalid_request"),
        ("Bearer \u00e9", 400, "invalid_request"),
        ("\x00", 400, "invalid_request"),
        ("Bearer abc", 401, "invalid_token"),
        ("Bearer a.b.c", 401, "invalid_token"),
        ("bearer a.b.c", 401, "invalid_token"),
        ("Bearer " + "a" * 30_000, 401, "invalid_token"),
        ("Bearer " + "a" * 100_000, 400, "invalid_request"),
    ],
)
def test_answers_as_rfc_6750_has_it(sent: str | None, code: int, error: str | None) -> None:
    """No token: a bare challenge. A malformed request: 400. A wrong token: 401 with the reason."""
    headers: dict[str, Any] = {} if sent is None else {"authorization": sent}
    app = RecordingApp()

    response = call(layer(app), environ("GET", "/", **headers))

    shown = str(response.header("WWW-Authenticate"))
    assert response.code == code
    assert shown.startswith('Bearer realm="restricted"')
    assert (f'error="{error}"' in shown) if error else ("error" not in shown)
    assert app.called == 0


@pytest.mark.parametrize(
    ("claims", "options", "code"),
    [
        ({}, {}, 200),
        ({"exp": 0}, {}, 401),
        ({"exp": int(time.time()) - 20}, {"leeway": "1h"}, 200),
        ({"exp": int(time.time()) - 80}, {"leeway": "1m"}, 401),
        ({"nbf": int(time.time()) + 300}, {}, 401),
        ({"nbf": int(time.time()) + 300}, {"leeway": "1h"}, 200),
        ({"iat": int(time.time()) + 300}, {}, 401),
        ({"iat": int(time.time()) + 300}, {"leeway": 3600}, 200),
        ({"iat": "yesterday"}, {}, 401),
        ({"exp": 1e300}, {}, 401),
        ({"exp": True}, {}, 401),
        ({"nbf": True}, {}, 401),
        ({"iat": False}, {}, 401),
        ({"exp": None}, {"required_claims": []}, 401),
        ({"iss": "https://idp.example/"}, {}, 401),
        ({"iss": "https://b.example"}, {"issuer": ["https://a.example", "https://b.example"]}, 200),
        ({"aud": ["other", "shop"]}, {}, 200),
        ({"aud": "shop2"}, {}, 401),
        ({"aud": "sh"}, {}, 401),
        ({"aud": ["shop", 5]}, {}, 401),
        ({}, {"audience": None}, 401),
        ({"aud": None}, {"audience": None}, 200),
        ({"sub": ""}, {}, 401),
        ({"sub": 5}, {}, 401),
        ({"sub": "a\r\nb"}, {}, 401),
        ({"sub": "a" * 256}, {}, 401),
        ({"email": "a@b.example"}, {"user_claim": "email"}, 200),
        ({}, {"required_claims": ["exp", "jti"]}, 401),
        ({"jti": "1"}, {"required_claims": ["exp", "jti"]}, 200),
        ({"scope": "read write"}, {"scopes": ["write"]}, 200),
        ({"scp": ["write"]}, {"scopes": ["write"]}, 200),
        ({"scope": "readwrite"}, {"scopes": ["write"]}, 403),
        ({}, {"scopes": ["write"]}, 403),
    ],
)
def test_checks_the_claims(claims: dict[str, Any], options: dict[str, Any], code: int) -> None:
    """Times with their leeway, issuer and audience exactly, the user, and the scopes."""
    response = ask(layer(RecordingApp(), **{**ISSUED, **options}), sign(**claims))

    assert response.code == code


def test_tells_which_scope_is_needed() -> None:
    """RFC 6750 section 3.1: insufficient_scope is a 403 that names the scope."""
    response = ask(layer(RecordingApp(), scopes=["a", "b"], **ISSUED), sign())

    assert 'error="insufficient_scope"' in str(response.header("WWW-Authenticate"))
    assert 'scope="a b"' in str(response.header("WWW-Authenticate"))


@pytest.mark.parametrize(
    ("claims", "name", "roles"),
    [
        ({"roles": "a b"}, "roles", {"a", "b"}),
        ({"realm_access": {"roles": ["a"]}}, "realm_access.roles", {"a"}),
        ({"https://x.example/roles": ["a"]}, "https://x.example/roles", {"a"}),
        ({"realm_access": "a"}, "realm_access.roles", set()),
        ({"roles": {"a": 1}}, "roles", set()),
        ({}, "groups", set()),
    ],
)
def test_finds_the_roles(claims: dict[str, Any], name: str, roles: set[str]) -> None:
    """Lists, words, and claims inside claims, as providers write them."""
    app = RecordingApp()

    ask(layer(app, roles_claim=name, **ISSUED), sign(**claims))

    assert IDENTITY.require(app.environ).roles == roles


@pytest.mark.parametrize(
    ("header", "options", "code"),
    [
        ({"typ": "JWT"}, {}, 200),
        ({"typ": "application/at+jwt"}, {}, 200),
        ({"typ": "logout+jwt"}, {}, 401),
        ({"typ": 5}, {}, 401),
        ({"typ": None}, {}, 401),
        ({"typ": "at+JWT"}, {"token_type": "at+jwt"}, 200),
        ({"typ": "JWT"}, {"token_type": "at+jwt"}, 401),
        ({}, {"token_type": "at+jwt"}, 401),
        ({"cty": "JWT"}, {}, 401),
        ({"kid": "anything"}, {}, 200),
        ({"kid": 5}, {}, 401),
        ({"kid": None}, {}, 401),
        ({"jku": "https://evil.example", "x5u": "https://evil.example"}, {}, 200),
        ({"crit": ["exp"], "exp": 1}, {}, 401),
        ({"zip": "DEF"}, {}, 401),
        ({"b64": True}, {}, 401),
    ],
)
def test_reads_the_header_strictly(header: dict[str, Any], options: dict[str, Any], code: int) -> None:
    """Another type of token, or anything that must be understood and is not, is refused; addresses are ignored."""
    response = ask(layer(RecordingApp(), **{**ISSUED, **options}), sign(header={"alg": "HS256", **header}))

    assert response.code == code


@pytest.mark.parametrize("algorithm", ["RS256", "PS384", "ES256", "ES512", "EdDSA", "HS512"])
def test_takes_each_kind_of_key_in_each_form(algorithm: str) -> None:
    """PEM, JWK, JWK set, secret, key object; private halves are not needed and not kept."""
    kind = algorithm[:2]
    if kind in ("RS", "PS"):
        key: Any = jwk.RSAKey.generate_key(2048)
    elif kind == "ES":
        key = jwk.ECKey.generate_key("P-256" if algorithm == "ES256" else "P-521")
    elif kind == "Ed":
        key = jwk.OKPKey.generate_key("Ed25519")
    else:
        key = jwk.OctKey.generate_key(512)
    public = key.as_dict(private=kind == "HS")
    forms = [public, [public], {"keys": [public]}, {"one": public}, Secret(json.dumps(public)), key]
    forms += [key.raw_value] if kind == "HS" else [key.as_pem(private=False), key.as_pem(private=True).decode()]
    token = sign(header={"alg": algorithm}, key=key)

    for form in forms:
        app = BearerAuthMiddleware(RecordingApp(), algorithms=[algorithm], keys=form, **ISSUED)
        assert ask(app, token).code == 200
        assert ask(app, token[:-4] + "AAAA").code == 401


def test_chooses_the_key_by_its_name() -> None:
    """A ``kid`` picks its key and no other; without one each is tried."""
    keys = {"old": "o" * 16 + SECRET, "new": "n" * 16 + SECRET}
    app = layer(RecordingApp(), keys=keys, **ISSUED)

    def signed(by: str, kid: str | None) -> int:
        header = {"alg": "HS256"} if kid is None else {"alg": "HS256", "kid": kid}
        return int(ask(app, sign(header=header, key=jwk.OctKey.import_key(keys[by]))).code)

    assert [signed("old", "old"), signed("new", "new"), signed("old", None)] == [200, 200, 200]
    assert [signed("old", "new"), signed("old", "other")] == [401, 401]


RSA = jwk.RSAKey.generate_key(2048)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"algorithms": []}, "algorithms"),
        ({"algorithms": ["none"]}, "algorithms"),
        ({"algorithms": "HS256"}, "algorithms"),
        ({"algorithms": ["hs256"]}, "algorithms"),
        ({"keys": None}, "something to verify with"),
        ({"keys": []}, "at least one key"),
        ({"keys": "short"}, "long enough"),
        ({"keys": SECRET, "algorithms": ["HS512"]}, "long enough"),
        ({"keys": SECRET, "algorithms": ["RS256"]}, "fits the algorithms RS256"),
        ({"keys": RSA.as_pem(private=False)}, "fits the algorithms HS256"),
        ({"keys": "\ufeff" + RSA.as_pem(private=False).decode()}, "no key file"),
        ({"keys": RSA.as_der(private=False)}, "no key file"),
        ({"keys": {"kty": "RSA", "n": "w" * 171, "e": "AQAB"}, "algorithms": ["RS256"]}, "2048"),
        (
            {"keys": {"kty": "RSA", "n": RSA.as_dict(private=False)["n"], "e": "AQ"}, "algorithms": ["RS256"]},
            "exponent",
        ),
        ({"keys": {"kty": "RSA", "n": "!", "e": "AQAB"}, "algorithms": ["RS256"]}, "base64url"),
        ({"keys": {"kty": "EC", "crv": "P-224", "x": "a", "y": "b"}, "algorithms": ["ES256"]}, "known curve"),
        ({"keys": {"kty": "EC", "crv": "P-256", "x": "AAAA", "y": "AAAA"}, "algorithms": ["ES256"]}, "well-formed"),
        ({"keys": {"kty": "oct", "k": "A" * 43, "use": "enc"}}, "for signatures"),
        ({"keys": {"kty": "oct", "k": "A" * 43, "key_ops": ["encrypt"]}}, "for signatures"),
        ({"keys": {"kty": "oct", "k": "A" * 43, "kid": 5}}, "kid"),
        ({"keys": [SECRET, RSA.as_dict(private=False)], "algorithms": ["HS256", "RS256"]}, "two layers"),
        ({"keys": [{"kty": "oct", "k": "A" * 43, "kid": "a"}] * 2}, "share an identifier"),
        ({"keys": "{"}, "JSON"),
        ({"keys": 5}, "PEM, a JWK"),
        ({"keys": "-----BEGIN PUBLIC KEY-----\nx"}, "PEM key"),
        ({"keys": SECRET, "jwks_url": "https://a.example"}, "not both"),
        ({"jwks_url": "http://a.example/", "algorithms": ["RS256"]}, "http only to this machine"),
        ({"jwks_url": "http://127.0.0.1/", "algorithms": ["RS256"]}, "insecure_http"),
        (
            {"jwks_url": "http://a.example/", "algorithms": ["RS256"], "insecure_http": True},
            "http only to this machine",
        ),
        ({"jwks_url": "file:///etc/passwd", "algorithms": ["RS256"]}, "jwks_url"),
        ({"jwks_url": "https://user:pw@a.example/", "algorithms": ["RS256"]}, "jwks_url"),
        ({"jwks_url": "https://a.example/", "algorithms": ["HS256"]}, "never published"),
        ({"issuer": []}, "issuer"),
        ({"audience": 5}, "audience"),
        ({"leeway": "soon"}, "leeway"),
        ({"required": "no"}, "required"),
        ({"realm": "\n"}, "realm"),
        ({"user_claim": ""}, "user_claim"),
        ({"token_type": 5}, "token_type"),
        ({"tokens": {API_KEY: "ci"}}, "SHA-256"),
        ({"tokens": {DIGEST: {"user": "ci", "role": "x"}}}, "a user, or"),
        ({"tokens": {DIGEST: "a\n"}}, "a user, or"),
        ({"tokens": 5}, "callable"),
        ({"decryption_algorithms": ["RSA-OAEP-256"]}, "all three"),
        ({"decryption_algorithms": ["RSA1_5"]}, "decryption_algorithms"),
    ],
)
def test_refuses_a_wrong_option_at_build(options: dict[str, Any], expected: str) -> None:
    """Each mistake is told with its cure, and no key is shown."""
    options = {"algorithms": ["HS256"], **options}
    if "tokens" in options:
        options["algorithms"] = []
    elif "jwks_url" not in options:
        options.setdefault("keys", SECRET)

    with pytest.raises(ConfigError, match=expected) as caught:
        BearerAuthMiddleware(RecordingApp(), **options)

    assert SECRET not in str(caught.value)
    assert API_KEY not in str(caught.value)


def test_passes_everything_on_when_not_required() -> None:
    """A wrong token makes the request anonymous; a 401 from inside says what was wrong with it."""
    app = RecordingApp()
    assert ask(layer(app, required=False), "a.b.c").code == 200
    assert IDENTITY.get(app.environ) is None

    response = ask(layer(RecordingApp(status="401 Unauthorized"), required=False), "a.b.c")
    assert 'error="invalid_token"' in str(response.header("WWW-Authenticate"))
    bare = call(layer(RecordingApp(status="401 Unauthorized"), required=False), environ("GET", "/"))
    assert bare.header("WWW-Authenticate") == 'Bearer realm="restricted"'


def test_never_overwrites_an_identity_from_outside() -> None:
    """The layer outside was first, so it wins, and the token is left alone."""
    app = RecordingApp()
    request = environ("GET", "/", authorization="Bearer x")
    IDENTITY.set(request, Identity("carol", "basic"))

    assert call(layer(app), request).code == 200
    assert IDENTITY.require(app.environ).user == "carol"


def test_opaque_tokens_of_a_table() -> None:
    """Known by their SHA-256, with a user and roles."""
    app = RecordingApp()
    built = layer(app, tokens={"sha256:" + DIGEST.upper(): {"user": "ci", "roles": ["deploy"]}})

    assert ask(built, API_KEY).code == 200
    assert IDENTITY.require(app.environ) == Identity("ci", "bearer", {}, frozenset({"deploy"}))
    assert ask(built, API_KEY + "x").code == 401
    assert ask(built, DIGEST).code == 401


def test_opaque_tokens_of_a_callable() -> None:
    """It says a name, an Identity, or nothing; JWTs beside it are still verified."""
    found: dict[str, Any] = {"a": "alice", "b": Identity("bob", "x", {"scope": "w"}), "c": None, "d": "d\n", "e": True}
    app = RecordingApp()
    built = layer(app, tokens=found.get, keys=SECRET, **ISSUED)

    assert [ask(built, token).code for token in "abcde"] == [200, 200, 401, 401, 401]
    assert IDENTITY.require(app.environ) == Identity("bob", "bearer", {"scope": "w"})
    assert ask(built, sign()).code == 200
    assert ask(layer(RecordingApp(), tokens=found.get, scopes=["w"]), "a").code == 403


def test_takes_no_token_from_anywhere_else() -> None:
    """Query and form end up in logs (RFC 6750 section 5.3): they are not looked at."""
    app = RecordingApp()
    request = environ("POST", "/?access_token=" + API_KEY, body=b"access_token=" + API_KEY.encode())

    assert call(layer(app, tokens={DIGEST: "ci"}), request).code == 401


# --- vectors and attacks ------------------------------------------------------------------------

# Valid by the RFCs, refused here: the key says another algorithm, or foreign characters stand in the base64url.
STRICTER = {346, 347, 350, 351, 372, 373}


def test_wycheproof(corpus: Any) -> None:
    """No invalid signature is accepted, and what is stricter than the RFCs is known."""
    cases = corpus("jwt_vectors")["wycheproof"]
    valid = {str(case["jws"]) for case in cases if case["result"] == "valid"}
    wrong, strict = [], set()
    for case in cases:
        key = case["public"] or case["private"]
        token = case["jws"] if isinstance(case["jws"], str) else json.dumps(case["jws"])
        try:
            keys = read_keys("keys", key, ALGORITHMS)
            verify_jws(token, ALGORITHMS, lambda kid, keys=keys: keys)  # type: ignore[misc]
        except (ConfigError, TokenError):
            if case["result"] == "valid":
                strict.add(case["tcId"])
        else:
            # Two cases called invalid are, octet for octet, a token that another case calls valid.
            if case["result"] != "valid" and token not in valid:
                wrong.append((case["file"], case["tcId"]))

    assert len(cases) == 476
    assert wrong == []
    assert strict == STRICTER


def test_rfc_7520(corpus: Any) -> None:
    """The cookbook's signatures are right, except that detached content is not taken."""
    for case in corpus("jwt_vectors")["rfc"]:
        keys = read_keys("keys", case["key"], [case["alg"]])
        if case["detached"]:
            with pytest.raises(TokenError):
                verify_jws(case["jws"], [case["alg"]], lambda kid, keys=keys: keys)  # type: ignore[misc]
        else:
            _, payload = verify_jws(case["jws"], [case["alg"]], lambda kid, keys=keys: keys)  # type: ignore[misc]
            assert payload.decode() == case["payload"]


def test_no_attack_gets_in(corpus: Any) -> None:
    """Of 145 tokens made to be accepted, only those called valid are; nothing raises, nothing is a 5xx."""
    data = corpus("jwt_vectors")
    algorithms = {"rsa": "RS256", "ec": "ES256", "hs": "HS256"}
    wanted = data["expected_claims"]
    accepted, answers = set(), set()
    for case in data["attacks"]:
        name = case["verify_with"]
        app = BearerAuthMiddleware(
            RecordingApp(),
            algorithms=[algorithms[name]],
            keys=data["keys"][name]["jwk"],
            issuer=wanted["iss"],
            audience=wanted["aud"],
            token_type="at+jwt" if case["result"] == "policy" else None,
        )
        code = ask(app, case["token"].encode().decode("latin-1")).code
        answers.add(code)
        if code == 200:
            accepted.add((case["name"], case["result"]))

    assert {result for _, result in accepted} == {"valid"}
    assert len(accepted) == 4
    assert answers == {200, 400, 401}


def test_ten_thousand_random_headers_are_all_refused() -> None:
    """Random bytes and mutated tokens: 400 or 401, never an exception."""
    app = RecordingApp()
    built = BearerAuthMiddleware(app, algorithms=["HS256"], keys=SECRET, **ISSUED)
    good = sign()
    generator = random.Random(4)
    codes = set()
    for i in range(10_000):
        if i % 2:
            sent = "Bearer " + generator.randbytes(generator.randrange(60)).decode("latin-1")
        else:
            at = generator.randrange(len(good))
            sent = "Bearer " + good[:at] + chr(generator.randrange(1, 256)) + good[at + generator.randrange(2) :]
        if sent == "Bearer " + good:
            continue
        codes.add(call(built, environ("GET", "/", authorization=sent)).code)
    assert codes == {400, 401}
    assert app.called == 0


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
NAMES = st.sampled_from(["exp", "nbf", "iat", "iss", "aud", "sub", "roles", "scope", "crit", "kid", "typ", "x"])


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(NAMES, JSON, max_size=6), st.dictionaries(NAMES, JSON, max_size=3))
def test_any_claims_are_an_answer(claims: dict[str, Any], header: dict[str, Any]) -> None:
    """Signed nonsense is refused or accepted, never an exception."""
    app = BearerAuthMiddleware(RecordingApp(), algorithms=["HS256"], keys=SECRET, required_claims=["sub"])

    assert ask(app, sign(claims, header={**header, "alg": "HS256"})).code in (200, 401)


@pytest.mark.timing
@pytest.mark.parametrize("payload", ['{"a":"' + '\\"' * 7000, "[" * 12_000, '{"a":' * 2000, "9" * 12_000, '"' * 12_000])
def test_a_hostile_payload_is_cheap(payload: str) -> None:
    """Depth, quotes and digits cost no more than their length."""
    token = sign(payload)
    app = layer(RecordingApp(), **ISSUED)

    started = time.thread_time()
    assert ask(app, token).code == 401
    assert time.thread_time() - started < 0.15


def test_shows_no_token(caplog: pytest.LogCaptureFixture) -> None:
    """Neither answers, nor log records, nor a repr hold a token, a claim or a key."""
    built = BearerAuthMiddleware(RecordingApp(), algorithms=["HS256"], keys=SECRET)
    token = sign(sub="very-secret-subject", exp=1)
    with caplog.at_level(0):
        response = ask(built, token)

    shown = (
        caplog.text
        + repr(vars(built))
        + response.text
        + str(response.headers)
        + repr(read_keys("k", SECRET, ["HS256"]))
    )
    assert token not in shown
    assert "very-secret-subject" not in shown
    assert SECRET not in shown


# --- key sets over the network ------------------------------------------------------------------

EC = jwk.ECKey.generate_key("P-256", {"kid": "one"})
EC2 = jwk.ECKey.generate_key("P-256", {"kid": "two"})


def key_set(*keys: Any) -> bytes:
    """A published set of keys."""
    return json.dumps({"keys": [key.as_dict(private=False) for key in keys]}).encode()


class Provider:
    """A provider that counts, and can be down."""

    def __init__(self, answer: bytes = b"") -> None:
        self.answer = answer
        self.down = False
        self.asked = 0

    def __call__(self, url: str) -> bytes:
        self.asked += 1
        if self.down:
            raise OSError("down")
        return self.answer


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock to be set by hand."""
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def remote(provider: Provider) -> RemoteKeys:
    """Keys of that provider: fresh for 600 seconds, 30 between fetches."""
    return RemoteKeys("https://idp.example", ["ES256"], seconds=600, pause=30, get=provider)


def test_keys_are_fetched_once_and_again_when_old(clock: list[float]) -> None:
    """One fetch serves all requests until it is old."""
    provider = Provider(key_set(EC))
    keys = remote(provider)
    assert provider.asked == 0

    assert [len(keys.keys("one")) for _ in range(5)] == [1] * 5
    assert provider.asked == 1
    clock[0] += 601
    keys.keys("one")
    assert provider.asked == 2


def test_a_new_name_is_looked_up_at_once_but_not_for_everybody(clock: list[float]) -> None:
    """A rotated key works with its first token; made-up names cost the provider one fetch in thirty seconds."""
    provider = Provider(key_set(EC))
    keys = remote(provider)
    keys.keys("one")
    provider.answer = key_set(EC, EC2)
    clock[0] += 31

    assert len(keys.keys("two")) == 2
    for i in range(100):
        clock[0] += 0.1
        keys.keys(f"made-up-{i}")
    assert provider.asked == 2


def test_keys_survive_an_outage(clock: list[float], caplog: pytest.LogCaptureFixture) -> None:
    """What is known stays in use while the provider is down, or talks nonsense."""
    provider = Provider(key_set(EC))
    keys = remote(provider)
    keys.keys("one")
    provider.down = True
    clock[0] += 601

    assert len(keys.keys("one")) == 1
    provider.down = False
    for nonsense in (b"", b"{}", b'{"keys": 5}', b"[" * 100_000, b'{"keys": []}', b"\xff"):
        provider.answer = nonsense
        clock[0] += 31
        assert len(keys.keys("one")) == 1
    assert "1 kept" in caplog.text


def test_without_any_key_the_answer_is_503(clock: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    """The token may be good: the client shall keep it and ask again."""
    provider = Provider()
    provider.down = True
    monkeypatch.setattr(_jwks, "fetch", provider)
    app = layer(RecordingApp(), algorithms=["ES256"], jwks_url="https://idp.example/", required=False, **ISSUED)
    token = sign(header={"alg": "ES256", "kid": "one"}, key=EC)

    response = ask(app, token)
    assert (response.code, response.header("Retry-After")) == (503, "5")
    assert response.header("WWW-Authenticate") is None
    ask(app, token)
    assert provider.asked == 1
    provider.down, provider.answer = False, key_set(EC)
    clock[0] += 6
    assert ask(app, token).code == 200


def test_one_bad_key_does_not_void_the_set() -> None:
    """Unusable, secret, private and ambiguous keys are left out, the rest is used."""
    good = EC.as_dict(private=False)
    bad = [
        {"kty": "oct", "k": "A" * 43},
        EC2.as_dict(private=True),
        {"kty": "XX"},
        5,
        {**good, "kid": "x", "alg": "RS256"},
        {**EC2.as_dict(private=False), "kid": "twice"},
        {**good, "kid": "twice"},
    ]

    keys, problems = read_jwks(json.dumps({"keys": [*bad, good]}).encode(), ["ES256"])

    assert [key.kid for key in keys] == ["one"]
    assert len(problems) == 6
    with pytest.raises(InvalidKeyError):
        read_jwks(b"[]", ["ES256"])


def test_many_threads_fetch_once() -> None:
    """A crowd before the first key waits for one fetch."""
    started = threading.Event()

    class Slow(Provider):
        def __call__(self, url: str) -> bytes:
            started.wait(1)
            return super().__call__(url)

    provider = Slow(key_set(EC))
    keys = remote(provider)
    found: list[int] = []
    threads = [threading.Thread(target=lambda: found.append(len(keys.keys("one")))) for _ in range(8)]
    for thread in threads:
        thread.start()
    started.set()
    for thread in threads:
        thread.join()

    assert (found, provider.asked) == ([1] * 8, 1)


class _Handler(BaseHTTPRequestHandler):
    """What a provider, good or bad, may answer."""

    def do_GET(self) -> None:
        if self.path == "/redirect":
            self.send_response(302)
            self.send_header("Location", "/good")
            self.end_headers()
        elif self.path == "/large":
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b" " * 300_000)
        elif self.path == "/good":
            self.send_response(200)
            self.end_headers()
            self.wfile.write(key_set(EC))
        else:
            self.send_error(404)

    def log_message(self, format: str, *arguments: Any) -> None:
        pass


@pytest.fixture
def provider_url() -> Iterator[str]:
    """A real provider on this machine."""
    server = HTTPServer(("127.0.0.1", 0), _Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.server
def test_fetches_from_a_real_provider(provider_url: str) -> None:
    """Over HTTP, from the fetch to the identity."""
    app = RecordingApp()
    built = layer(app, algorithms=["ES256"], jwks_url=f"{provider_url}/good", insecure_http=True, **ISSUED)

    assert ask(built, sign(header={"alg": "ES256", "kid": "one"}, key=EC)).code == 200
    assert IDENTITY.require(app.environ).user == "alice"


@pytest.mark.server
@pytest.mark.parametrize("path", ["/redirect", "/large", "/missing"])
def test_takes_no_keys_from_a_bad_provider(provider_url: str, path: str, caplog: pytest.LogCaptureFixture) -> None:
    """A redirect, an endless answer, an error: no keys."""
    with caplog.at_level(logging.WARNING):
        keys = RemoteKeys(provider_url + path, ["ES256"], seconds=600, pause=30)
        with pytest.raises(KeysUnavailableError):
            keys.keys("one")
    assert "keys not fetched" in caplog.text


# --- encrypted tokens ---------------------------------------------------------------------------


def test_reads_an_encrypted_token_that_is_signed_inside() -> None:
    """A JWE is opened with the configured algorithm; its content must be a signed token all the same."""
    recipient = jwk.RSAKey.generate_key(2048)
    app = layer(
        RecordingApp(),
        keys=SECRET,
        decryption_keys=recipient.as_pem(private=True),
        decryption_algorithms=["RSA-OAEP-256"],
        **ISSUED,
    )

    def sealed(content: str, alg: str = "RSA-OAEP-256", enc: str = "A256GCM", **more: Any) -> str:
        header = {"alg": alg, "enc": enc, **more}
        return jwe.encrypt_compact(header, content, recipient, algorithms=[alg, enc, "DEF"])

    assert ask(app, sealed(sign())).code == 200
    assert ask(app, sign()).code == 200
    assert ask(app, sealed(sign(exp=1))).code == 401
    assert ask(app, sealed(json.dumps(CLAIMS))).code == 401
    assert ask(app, sealed(sign(), alg="RSA-OAEP")).code == 401
    assert ask(app, sealed(sign(), enc="A192GCM")).code == 401
    assert ask(app, sealed(sign(), zip="DEF")).code == 401
    assert ask(app, sealed(sign())[:-2] + "AA").code == 401
    assert ask(layer(RecordingApp(), **ISSUED), sealed(sign())).code == 401


@pytest.mark.parametrize("keys", [RSA.as_pem(private=False), "", [], {"kty": "RSA", "d": "x"}, 5])
def test_refuses_keys_that_decrypt_nothing(keys: Any) -> None:
    """Public halves and broken keys are told at build."""
    with pytest.raises(ConfigError, match="decryption_keys"):
        layer(RecordingApp(), keys=SECRET, decryption_keys=keys, decryption_algorithms=["RSA-OAEP-256"])

"""CORSMiddleware: who may read, who is asked before, and what can never be configured."""

from __future__ import annotations

import re
from typing import Any
from wsgiref.types import WSGIApplication

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lamella.middleware._cors_domains import is_shared
from lamella.middleware.cors import CORSMiddleware, _Ready
from lamella.stack.kernel.errors import ConfigError
from lamella.stack.kernel.http import parse_origin
from lamella.stack.testing import RecordingApp, Response, call, environ, lint

SHOP = "https://shop.example"
EVIL = "https://evil.example"


def layer(app: WSGIApplication, **options: Any) -> WSGIApplication:
    """The layer under test, with the linter on both of its sides."""
    options.setdefault("origins", [SHOP])
    return lint(CORSMiddleware(lint(app), **options))


def preflight(app: WSGIApplication, origin: str, method: str = "PUT", path: str = "/", **headers: Any) -> Response:
    """Ask before a request, as a browser does."""
    return call(app, environ("OPTIONS", path, origin=origin, access_control_request_method=method, **headers))


def allowed(response: Response) -> str | None:
    """The origin that may read the answer."""
    return response.header("Access-Control-Allow-Origin")


def test_lets_an_allowed_origin_read() -> None:
    """The origin is echoed once, and the answer varies on it."""
    response = call(layer(RecordingApp()), environ("GET", "/", origin=SHOP))

    assert response.header_list("Access-Control-Allow-Origin") == [SHOP]
    assert response.header("Vary") == "Origin"
    assert response.body == b"hello"


@pytest.mark.parametrize("origin", [EVIL, None])
@pytest.mark.parametrize("status", ["200 OK", "304 Not Modified", "500 Internal Server Error"])
def test_varies_on_origin_also_when_it_says_nothing(origin: str | None, status: str) -> None:
    """Refused or absent: a cache must not hand this answer to an allowed origin."""
    app = RecordingApp(status=status, headers=[], body=[]) if "304" in status else RecordingApp(status=status)
    request = environ("GET", "/") if origin is None else environ("GET", "/", origin=origin)

    response = call(layer(app), request)

    assert allowed(response) is None
    assert response.header("Vary") == "Origin"


def test_error_answers_carry_the_headers_too() -> None:
    """Otherwise the browser hides the error from the page."""
    response = call(layer(RecordingApp(status="404 Not Found")), environ("GET", "/", origin=SHOP))

    assert allowed(response) == SHOP


def test_replaces_what_the_app_says_itself() -> None:
    """Two Access-Control-Allow-Origin lines would make the browser refuse; Vary is merged."""
    app = RecordingApp(
        headers=[
            ("Content-Type", "text/plain"),
            ("Access-Control-Allow-Origin", "*"),
            ("access-control-allow-credentials", "true"),
            ("Vary", "Accept, origin"),
        ]
    )

    response = call(layer(app), environ("GET", "/", origin=SHOP))

    assert response.header_list("Access-Control-Allow-Origin") == [SHOP]
    assert response.header("Access-Control-Allow-Credentials") is None
    assert response.header("Vary") == "Accept, origin"


def test_removes_the_app_s_own_permission_for_a_refused_origin() -> None:
    """An app inside cannot let in whom the layer refuses."""
    app = RecordingApp(headers=[("Content-Type", "text/plain"), ("Access-Control-Allow-Origin", EVIL)])

    assert allowed(call(layer(app), environ("GET", "/", origin=EVIL))) is None


def test_a_wildcard_is_constant() -> None:
    """``*`` without credentials is the same for everybody, so nothing varies."""
    response = call(layer(RecordingApp(), origins=["*"]), environ("GET", "/"))

    assert allowed(response) == "*"
    assert response.header("Vary") is None


def test_answers_a_preflight_itself() -> None:
    """With 204, methods, headers, age; the app inside is not asked."""
    app = RecordingApp()
    wrapped = layer(app, methods=["PUT"], headers=["Content-Type", "X-Api"], credentials=True, max_age="1h")

    response = preflight(wrapped, SHOP, access_control_request_headers="content-type,x-api")

    assert response.code == 204
    assert allowed(response) == SHOP
    assert response.header("Access-Control-Allow-Methods") == "PUT"
    assert response.header("Access-Control-Allow-Headers") == "Content-Type, X-Api"
    assert response.header("Access-Control-Allow-Credentials") == "true"
    assert response.header("Access-Control-Max-Age") == "3600"
    assert "Access-Control-Request-Private-Network" in (response.header("Vary") or "")
    assert app.called == 0


@pytest.mark.parametrize(
    ("origin", "method", "headers", "why"),
    [
        pytest.param(EVIL, "PUT", "", "origin", id="origin"),
        pytest.param(SHOP, "DELETE", "", "method", id="method"),
        pytest.param(SHOP, "put", "", "method", id="lower-case method"),
        pytest.param(SHOP, "PUT", "x-other", "header", id="header"),
        pytest.param(SHOP, "PUT", "x y", "malformed", id="malformed header"),
        pytest.param(SHOP, "PUT", ",".join(["a"] * 65), "malformed", id="too many headers"),
    ],
)
def test_refuses_a_preflight_with_the_reason(origin: str, method: str, headers: str, why: str) -> None:
    """403, no permission, and a word to the developer."""
    wrapped = layer(RecordingApp(), methods=["PUT"])

    response = preflight(wrapped, origin, method, access_control_request_headers=headers)

    assert response.code == 403
    assert allowed(response) is None
    assert why in response.text
    assert (response.header("Vary") or "").startswith("Origin")


@pytest.mark.parametrize("headers", [{}, {"origin": SHOP}, {"access_control_request_method": "PUT"}])
def test_other_options_requests_reach_the_app(headers: dict[str, Any]) -> None:
    """Without an origin and a requested method it is no preflight."""
    app = RecordingApp()

    call(layer(app), environ("OPTIONS", "/", **headers))

    assert app.called == 1


def test_any_requested_header_can_be_allowed() -> None:
    """``"*"`` allows what is asked for, without credentials."""
    response = preflight(layer(RecordingApp(), headers="*"), SHOP, "POST", access_control_request_headers="x-a, x-b")

    assert response.header("Access-Control-Allow-Headers") == "x-a, x-b"


@pytest.mark.parametrize(("method", "code"), [("PATCH", 204), ("PURGE", 403)])
def test_a_wildcard_of_methods_means_the_standard_ones(method: str, code: int) -> None:
    """A method of one's own must be listed."""
    assert preflight(layer(RecordingApp(), methods=["*"]), SHOP, method).code == code


@pytest.mark.parametrize(("configured", "code"), [(True, 204), (False, 403)])
def test_private_networks_are_open_only_where_told(configured: bool, code: int) -> None:
    """A public page may call into a private network only by configuration."""
    wrapped = layer(RecordingApp(), private_network=configured)

    response = preflight(wrapped, SHOP, "GET", access_control_request_private_network="true")

    assert response.code == code
    assert response.header("Access-Control-Allow-Private-Network") == ("true" if configured else None)


def test_exposes_headers() -> None:
    """What the page may read beyond the safelisted headers."""
    response = call(layer(RecordingApp(), expose=["X-Total"]), environ("GET", "/", origin=SHOP))

    assert response.header("Access-Control-Expose-Headers") == "X-Total"


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/other", SHOP),
        ("/api/cart", "*"),
        ("/api", "*"),
        ("/api/private/x", None),
        ("/API/cart", SHOP),
        ("/apis", SHOP),
        ("/api+x", SHOP),
    ],
)
def test_the_most_specific_policy_decides(path: str, expected: str | None) -> None:
    """On the canonical path, case-sensitive, on segment borders."""
    policies = [{"paths": ["/api/*"], "origins": "*"}, {"paths": ["/api/private/*"], "origins": []}]

    assert allowed(call(layer(RecordingApp(), policies=policies), environ("GET", path, origin=SHOP))) == expected


def test_an_ambiguous_path_has_no_policy() -> None:
    """``/api/../x`` is neither below ``/api`` nor anywhere else."""
    app = RecordingApp()
    wrapped = layer(app, policies=[{"paths": ["/api/*"], "origins": "*"}])

    response = call(wrapped, environ("GET", "/api/../x", origin=SHOP))

    assert (response.code, response.header("Vary"), app.called) == (400, "Origin", 0)


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"origins": "*", "credentials": True}, id="any origin with credentials"),
        pytest.param({"origins": ["null"], "credentials": True}, id="null with credentials"),
        pytest.param({"origins": [{"regex": ".*"}], "credentials": True}, id="any origin by regex"),
        pytest.param({"origins": [{"regex": r"https://.*\.com"}], "credentials": True}, id="all of .com"),
        pytest.param({"origins": [{"regex": "https?://[^/]+"}], "credentials": True}, id="any host"),
        pytest.param({"origins": [{"suffix": ".com"}]}, id="a public suffix"),
        pytest.param({"origins": [{"suffix": ".github.io"}]}, id="a shared host"),
        pytest.param({"origins": ["https://*"]}, id="a bare wildcard"),
        pytest.param({"origins": ["*.shop.example"]}, id="no scheme"),
        pytest.param({"origins": ["https://shop.example/"]}, id="a path"),
        pytest.param({"origins": ["shop.example"]}, id="only a host"),
        pytest.param({"origins": "https://shop.example"}, id="text instead of a list"),
        pytest.param({"origins": [{"suffix": "shop.example"}]}, id="a suffix without dot"),
        pytest.param({"origins": [{"regex": "("}]}, id="a broken regex"),
        pytest.param({"origins": [{"regexp": "a"}]}, id="an unknown form"),
        pytest.param({"origins": [3]}, id="a number"),
        pytest.param({"credentials": True, "headers": "*"}, id="any header with credentials"),
        pytest.param({"credentials": True, "expose": ["*"]}, id="all exposed with credentials"),
        pytest.param({"methods": ["get"]}, id="a lower-case method"),
        pytest.param({"methods": "GET"}, id="methods as text"),
        pytest.param({"headers": ["X Y"]}, id="a bad header name"),
        pytest.param({"max_age": "soon"}, id="a bad age"),
        pytest.param({"credentials": "yes"}, id="a word for a boolean"),
        pytest.param({"policies": [{"origins": "*"}]}, id="a policy without paths"),
        pytest.param({"policies": [{"paths": []}]}, id="a policy for nothing"),
        pytest.param({"policies": [{"paths": ["api"]}]}, id="a path without slash"),
        pytest.param({"policies": [{"paths": ["/a"], "orgins": "*"}]}, id="a misspelt key"),
        pytest.param({"policies": [{"paths": ["/a", "/a"]}]}, id="a path twice"),
        pytest.param({"credentials": True, "policies": [{"paths": ["/a"], "origins": "*"}]}, id="a policy for all"),
    ],
)
def test_refuses_unsafe_and_malformed_options(options: dict[str, Any]) -> None:
    """What is wrong is told when the stack is built."""
    with pytest.raises(ConfigError):
        CORSMiddleware(RecordingApp(), **{"origins": [SHOP], **options})


@pytest.mark.parametrize(
    ("spec", "origin", "expected"),
    [
        ("https://shop.example:443", SHOP, True),
        ("HTTPS://Shop.Example", SHOP, True),
        ({"exact": SHOP}, SHOP, True),
        ({"suffix": ".shop.example"}, "https://a.b.shop.example", True),
        ({"suffix": ".shop.example"}, SHOP, False),
        ({"suffix": ".shop.example"}, "http://a.shop.example", False),
        ({"suffix": ".shop.example", "scheme": "http", "port": 3000}, "http://a.shop.example:3000", True),
        ("http://*.shop.example:3000", "http://a.shop.example:3000", True),
        ({"regex": r"https://app\d*\.shop\.example"}, "https://app7.shop.example", True),
        ("null", "null", True),
        ("http://[::1]:3000", "http://[::1]:3000", True),
    ],
)
def test_origins_can_be_written_in_many_ways(spec: Any, origin: str, expected: bool) -> None:
    """Exact, below a domain, by regular expression, by name."""
    response = call(layer(RecordingApp(), origins=[spec]), environ("GET", "/", origin=origin))

    assert (allowed(response) == origin) is expected


def test_no_origin_of_the_corpus_gets_in_wrongly(corpus: Any) -> None:
    """Each configuration allows exactly what it must, and denies all else."""
    for case in corpus("cors_origins")["cases"]:
        config = case["config"]
        origins = config.get("origins") or [{"regex": config["origin_regex"]}]
        for credentials in (False, True):
            if credentials and "null" in origins:
                continue
            app = CORSMiddleware(RecordingApp(), origins=origins, credentials=credentials)
            for origin in case["allow"]:
                assert allowed(call(app, environ("GET", "/", origin=origin))) == origin
            for origin in case["deny"]:
                assert allowed(call(app, environ("GET", "/", origin=origin))) is None, origin
                assert allowed(call(app, environ("HEAD", "/", origin=origin))) is None, origin


@given(st.text(st.characters(max_codepoint=255), max_size=40))
def test_only_the_listed_origin_is_ever_echoed(origin: str) -> None:
    """Whatever a client sends as its origin."""
    app = CORSMiddleware(RecordingApp(), origins=[SHOP, {"suffix": ".shop.example"}], credentials=True)

    response = call(app, environ("GET", "/", origin=origin))

    assert allowed(response) in (None, SHOP) or origin.endswith(".shop.example")


def ready_of(middleware: CORSMiddleware) -> _Ready:
    """What a layer has ready for the origins that asked."""
    cells: Any = middleware.wsgi_closure.__closure__
    (found,) = (cell.cell_contents for cell in cells if isinstance(cell.cell_contents, _Ready))
    return found


def test_remembers_a_bounded_number_of_origins() -> None:
    """Names below a domain are without end; the memory is not."""
    app = CORSMiddleware(RecordingApp(), origins=[{"suffix": ".shop.example"}])
    for number in range(1000):
        call(app, environ("GET", "/", origin=f"https://a{number}.shop.example"))

    assert len(ready_of(app).starts) == 256


def test_tells_its_decisions() -> None:
    """For the table of ``lamella cors``."""
    app = CORSMiddleware(RecordingApp(), origins=[SHOP], methods=["PUT"])

    assert app.decide(SHOP, "/", "PUT") == "allowed"
    assert app.decide(EVIL, "/", "PUT") == "the origin is not allowed"
    assert app.decide(SHOP, "/", "DELETE") == "the method is not allowed"


# --- nobody's configuration lets strangers in ---------------------------------------------------

#: Pieces of expressions, from which the property test makes whole ones.
PIECES = (
    *(r"shop\.example", r"corp\.test", "shop.example", r"\.shop\.example", r"(?:\.corp\.test)", "localhost"),
    *(r"(?:\.shop\.example|\.com)", r"\.co\.uk", r"\.github\.io", r"(?:www|api)", r"(?:x|)", "www", r"\.", "-"),
    *(".", r"[a-z]", r"[a-z0-9.-]", r"[^/]", r"\w", r"\d", "[ab]"),
)


@pytest.mark.parametrize(
    "pattern",
    [
        r"https://.*\.shop\.example",
        r"https://(?:.+\.)?shop\.example",
        r"https://([a-z]+\.)+shop\.example",
        r"^https://(www|api)\.shop\.(com|co\.uk)$",
        r"https://pr-\d+\.shop\.example(?::\d+)?",
        r"(?i)https://[A-Z]+\.SHOP\.example",
        r"https?://(localhost|127\.0\.0\.1)(:[0-9]{1,5})?",
        r"http://[a-z]+\.localhost:3000",
        r".*://shop\.example",
        r"(?=https://[a-z.]+$).*\.shop\.example",
        re.compile(r"https://[a-z]+ \.shop\.example", re.VERBOSE),
    ],
)
def test_an_expression_for_one_s_own_hosts_may_have_credentials(pattern: Any) -> None:
    """What varies stands below a domain of one's own."""
    CORSMiddleware(RecordingApp(), origins=[{"regex": pattern}], credentials=True)


@pytest.mark.parametrize(
    "pattern",
    [
        r".*",
        r"https?://[^/]+",
        r"https://[a-z0-9.-]+",
        r"https://[\s\S]*",
        r"https://[a-z]{30,}\.[a-z]+",
        r"https://[a-z]{1,3}\.[a-z]{2}",
        r"https://.*\.(museum|shop\.example)",
        r"https://shop\.example|.*\.zip",
        r"https://shop\.example.*",
        r"https://shop\.example\d+",
        r"https://.*shop\.example",
        r"https://.*-shop\.vercel\.app",
        r"https://www.shop\.example",
        r"https://.*\.shop.example",
        r"https://(.*)\.co\.uk",
        r"https://([a-z.]+)\.github\.io",
        r"https://.*\.s3\.amazonaws\.com",
        r"https://.*(\.shop\.example)*",
        r"https://(?!evil).*",
        r"https://.*(?<=\.shop\.example)",
        r"(?P<any>[a-z.]+)://(?P=any)",
        r"https://(x)?(?(1)a|.*)",
        r"https://\d+\.\d+\.\d+\.\d+",
        r"https://10\.\d+\.0\.1",
        r"https://a(?>.*|b)",
        "https://[a-z.]*\N{LATIN SMALL LETTER LONG S}hop\\.example",
        re.compile(r"https://.* # \.shop\.example", re.VERBOSE),
        re.compile("https://.*\n", re.DOTALL | re.IGNORECASE),
        "|".join(rf"https://{chr(97 + a)}{chr(97 + b)}\.example" for a in range(20) for b in range(20)) + "|.*",
    ],
)
def test_an_expression_that_strangers_can_match_never_has_credentials(pattern: Any) -> None:
    """Neither at once nor by a policy; without credentials anybody may be let in."""
    origins = [{"regex": pattern}]
    CORSMiddleware(RecordingApp(), origins=origins)

    with pytest.raises(ConfigError):
        CORSMiddleware(RecordingApp(), origins=origins, credentials=True)
    with pytest.raises(ConfigError):
        CORSMiddleware(RecordingApp(), origins=origins, policies=[{"paths": ["/a"], "credentials": True}])
    with pytest.raises(ConfigError):
        CORSMiddleware(
            RecordingApp(), origins=[SHOP], credentials=True, policies=[{"paths": ["/a"], "origins": origins}]
        )


@given(
    st.lists(
        st.tuples(st.sampled_from(PIECES), st.sampled_from(["", "", "", "?", "*", "+", "{2}", "{1,9}"])), max_size=6
    ),
    st.data(),
)
@settings(max_examples=300, deadline=None)
def test_what_an_accepted_expression_matches_is_one_s_own(pieces: list[tuple[str, str]], data: st.DataObject) -> None:
    """Whatever the expression: nobody can put text of their choice into the registered domain of what it allows."""
    pattern = "https?://" + "".join(f"(?:{piece}){times}" for piece, times in pieces)
    try:
        app = CORSMiddleware(RecordingApp(), origins=[{"regex": pattern}], credentials=True)
    except ConfigError:
        return
    for _ in range(3):
        origin = data.draw(st.from_regex(pattern, fullmatch=True, alphabet=st.characters(codec="ascii")))
        parsed = parse_origin(origin)
        if parsed is None or parsed.host == "localhost" or parsed.host.endswith(".localhost"):
            continue
        end = len(parsed.scheme) + 3 + len(parsed.host)
        for at in range(end - len(registered(parsed.host)), end + 1):
            for chosen in ("qzk", "77", "qzk.com", "qzk-"):
                stranger = origin[:at] + chosen + origin[at:]
                found = parse_origin(stranger)
                if found is not None and chosen[:2] in registered(found.host):
                    assert allowed(call(app, environ("GET", "/", origin=stranger))) is None, pattern


def registered(host: str) -> str:
    """The domain that somebody has to own for a name such as *host*."""
    labels = host.split(".")
    return ".".join(labels[-3 if is_shared(".".join(labels[-2:])) else -2 :])


@pytest.mark.parametrize(
    ("domain", "expected"),
    [
        ("com", True),
        ("co.uk", True),
        ("com.mx", True),
        ("github.io", True),
        ("s3.eu-west-1.amazonaws.com", True),
        ("10.0.0.1.nip.io", True),
        ("0.1", True),
        ("", True),
        ("shop.", True),
        ("shop.example", False),
        ("team.github.io", False),
        ("shop.co.uk", False),
        ("localhost", False),
    ],
)
def test_knows_where_anybody_gets_a_name(domain: str, expected: bool) -> None:
    """Registries, clouds, tunnels."""
    assert is_shared(domain) is expected


def test_a_remembered_preflight_is_answered_as_the_first_one() -> None:
    """The same question gets the same answer; another origin, method or header is asked anew."""
    app = layer(RecordingApp(), origins=["https://a.example"], methods=["PUT"], headers=["X-One"])
    asked = {"access_control_request_headers": "x-one"}

    first = preflight(app, "https://a.example", **asked)
    again = preflight(app, "https://a.example", **asked)

    assert (first.status, first.headers) == (again.status, again.headers)
    assert first.status == "204 No Content"
    assert preflight(app, "https://b.example", **asked).status == "403 Forbidden"
    assert preflight(app, "https://a.example", "DELETE", **asked).status == "403 Forbidden"
    assert preflight(app, "https://a.example", access_control_request_headers="x-two").status == "403 Forbidden"


def test_what_is_remembered_of_preflights_is_bounded() -> None:
    """A client that asks for ever other headers fills no memory; the answers stay right."""
    middleware = CORSMiddleware(RecordingApp(), origins="*", headers="*")
    for number in range(400):
        answer = preflight(lint(middleware), "https://a.example", "GET", access_control_request_headers=f"x-{number}")
        assert answer.header("Access-Control-Allow-Headers") == f"x-{number}"

    assert len(ready_of(middleware)._preflights) == 256

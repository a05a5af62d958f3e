"""ProxyMiddleware: who may say who the client is."""

from __future__ import annotations

import time
from typing import Any
from wsgiref.types import WSGIApplication

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamella.middleware._proxy import parse_node, parse_prefix
from lamella.middleware.proxy import ProxyMiddleware
from lamella.stack.kernel.environ import header_key
from lamella.stack.kernel.errors import ConfigError
from lamella.stack.kernel.http import parse_host
from lamella.stack.kernel.keys import CLIENT
from lamella.stack.testing import RecordingApp, call, environ, lint

PROXY = "10.0.0.1"


def layer(app: WSGIApplication, **options: Any) -> WSGIApplication:
    """The layer under test, with the linter on both of its sides."""
    options.setdefault("trust", ["10.0.0.0/8"])
    return lint(ProxyMiddleware(lint(app), **options))


def inside(request: dict[str, Any], **options: Any) -> dict[str, Any]:
    """What an app behind the layer sees of *request*."""
    app = RecordingApp()
    assert call(layer(app, **options), request).code == 200
    return app.environ


def seen(options: dict[str, Any] | None = None, /, peer: str = PROXY, **headers: Any) -> dict[str, Any]:
    """What an app sees of a request from *peer* with *headers*."""
    return inside(environ("GET", "/x", REMOTE_ADDR=peer, host="orig", **headers), **(options or {}))


def test_holds_the_forwarded_corpus(corpus: Any) -> None:
    """0 misses."""
    for case in corpus("forwarded")["cases"]:
        headers = {header_key(name): value for name, value in case["headers"].items() if "_" not in name}
        family = "forwarded" if list(case["headers"]) == ["Forwarded"] else "x-forwarded"
        request = environ(
            "GET", "/x", host="orig", REMOTE_ADDR="" if case["peer"] == "unix:" else case["peer"], **headers
        )
        app = RecordingApp()
        options = {"trust": case["trusted"], "headers": family, "hops": case["hops"] or None}
        assert call(ProxyMiddleware(app, **options), request).code == 200
        inner, expect = app.environ, case["expect"]
        client = expect.get("client", "")
        if client.startswith("valid IP"):
            assert parse_node(inner["REMOTE_ADDR"]), case
        elif client[:1].isdigit():
            assert inner["REMOTE_ADDR"] == CLIENT.require(inner).address == client, case
        if expect.get("scheme") in ("http", "https"):
            assert inner["wsgi.url_scheme"] == expect["scheme"], case
        if "host" in expect:
            assert inner["HTTP_HOST"] == expect["host"].removesuffix(" or 400"), case
        if "port" in expect:
            assert inner["SERVER_PORT"] == "80", case
        if "script" in expect:
            assert inner["SCRIPT_NAME"] == expect["script"].replace("orig", ""), case
        assert not [key for key in inner if key.startswith(("HTTP_X_FORWARDED", "HTTP_FORWARDED"))], case


def test_takes_everything_from_a_trusted_proxy() -> None:
    """Address, scheme, host, port and prefix, in the CGI variables and in ``lamella.client``."""
    inner = seen(
        x_forwarded_for="192.0.2.7:4711",
        x_forwarded_proto="HTTPS",
        x_forwarded_host="shop.example",
        x_forwarded_port="8443",
        x_forwarded_prefix="/shop/",
        REMOTE_HOST="proxy.local",
    )

    assert CLIENT.require(inner) == ("https", "shop.example:8443", "192.0.2.7")
    assert inner["REMOTE_ADDR"] == "192.0.2.7"
    assert inner["REMOTE_PORT"] == "4711"
    assert "REMOTE_HOST" not in inner
    assert (inner["wsgi.url_scheme"], inner["HTTPS"]) == ("https", "on")
    assert (inner["HTTP_HOST"], inner["SERVER_NAME"]) == ("shop.example:8443", "shop.example")
    assert inner["SERVER_PORT"] == "8443"
    assert (inner["SCRIPT_NAME"], inner["PATH_INFO"]) == ("/shop", "/x")


def test_keeps_the_originals() -> None:
    """``lamella.proxy.original`` has each changed key as the server set it; None where it set none."""
    original = seen(x_forwarded_for="192.0.2.7", x_forwarded_proto="https", REMOTE_PORT="99")["lamella.proxy.original"]

    assert original == {
        "HTTP_X_FORWARDED_FOR": "192.0.2.7",
        "HTTP_X_FORWARDED_PROTO": "https",
        "REMOTE_ADDR": PROXY,
        "REMOTE_PORT": "99",
        "wsgi.url_scheme": "http",
        "HTTPS": None,
        "SERVER_PORT": "80",
    }


@pytest.mark.parametrize("headers", ["x-forwarded", "forwarded"])
def test_removes_what_a_stranger_says(headers: str) -> None:
    """From anybody else no forwarding header and no identity header reaches the app."""
    sent = {
        "x_forwarded_for": "127.0.0.1",
        "x_forwarded_proto": "https",
        "x_forwarded_host": "evil.example",
        "x_forwarded_prefix": "/admin",
        "x_original_url": "/admin",
        "x_accel_mapping": "/=/",
        "x_sendfile_type": "X-Accel-Redirect",
        "x_forwarded_uri": "/public",
        "x_rewrite_url": "/public",
        "forwarded": "for=127.0.0.1;host=evil.example",
        "x_real_ip": "127.0.0.1",
        "x_remote_user": "admin",
        "remote_user": "admin",
        "x_forwarded_user": "admin",
    }

    inner = seen({"headers": headers}, peer="203.0.113.9", **sent)

    assert CLIENT.require(inner) == ("http", "orig", "203.0.113.9")
    assert inner["SCRIPT_NAME"] == ""
    assert not {"HTTP_" + name.upper() for name in sent} & set(inner)
    assert set(inner["lamella.proxy.original"]) == {"HTTP_" + name.upper() for name in sent}


def test_keeps_the_identity_that_a_trusted_proxy_sends() -> None:
    """An authenticating proxy of ours may say who the user is."""
    assert seen(x_forwarded_user="ann")["HTTP_X_FORWARDED_USER"] == "ann"


@pytest.mark.parametrize(
    ("sent", "client"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("6.6.6.6, 192.0.2.7", "192.0.2.7"),
        ("6.6.6.6, 192.0.2.7, 10.1.1.1, 10.2.2.2", "192.0.2.7"),
        ("10.9.9.9, 10.1.1.1", "10.9.9.9"),
        ("6.6.6.6, unknown", PROXY),
        ("6.6.6.6, garbage, 10.1.1.1", "10.1.1.1"),
        ("[2001:db8::1]:80", "2001:db8::1"),
        ("2001:DB8:0::1", "2001:db8::1"),
        ("::ffff:10.1.1.1", "10.1.1.1"),
        ("6.6.6.6, ::ffff:10.1.1.1", "6.6.6.6"),
        ("fe80::1%eth0", PROXY),
        ("1.2.3.4:99999", PROXY),
        ("1.2.3.4:", PROXY),
        ("[1.2.3.4]", PROXY),
        ("0x7f.1", PROXY),
        ("1.2.3.4 ", "1.2.3.4"),
        ("", PROXY),
        ("١.2.3.4", PROXY),
    ],
)
def test_walks_from_the_right(sent: str, client: str) -> None:
    """The client is the first address from the right that is no proxy of ours."""
    request = {**environ("GET", "/", REMOTE_ADDR=PROXY), "HTTP_X_FORWARDED_FOR": sent}
    app = RecordingApp()

    call(ProxyMiddleware(app, trust=["10.0.0.0/8"]), request)

    assert CLIENT.require(app.environ).address == client


@pytest.mark.parametrize(
    ("proto", "forwarded_for", "scheme"),
    [
        ("https, http", "6.6.6.6", "http"),
        ("https, http", "6.6.6.6, 10.1.1.1", "https"),
        ("https", "6.6.6.6, 10.1.1.1", "https"),
        ("https, http", "6.6.6.6, 10.1.1.1, 10.1.1.2", "http"),
        ("javascript", "6.6.6.6", "http"),
        ("https,", "6.6.6.6", "http"),
    ],
)
def test_takes_the_value_of_the_outermost_trusted_proxy(proto: str, forwarded_for: str, scheme: str) -> None:
    """Of a list, the value as many proxies from the right as were walked."""
    assert seen(x_forwarded_for=forwarded_for, x_forwarded_proto=proto)["wsgi.url_scheme"] == scheme


@pytest.mark.parametrize(("hops", "client"), [(1, "10.2.2.2"), (2, "10.1.1.1"), (3, "192.0.2.7"), (4, PROXY)])
def test_counts_hops_where_told_to(hops: int, client: str) -> None:
    """No more entries than proxies are believed; with fewer, one of them did not speak, so nothing is."""
    inner = seen({"hops": hops}, x_forwarded_for="192.0.2.7, 10.1.1.1, 10.2.2.2", x_forwarded_proto="https")

    assert inner["REMOTE_ADDR"] == client
    assert inner["wsgi.url_scheme"] == ("https" if hops < 4 else "http")


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        ('for=192.0.2.7;proto=https;host="shop.example:8443"', ("https", "shop.example:8443", "192.0.2.7")),
        ("For=192.0.2.7;PROTO=HTTPS", ("https", "orig", "192.0.2.7")),
        ("for=6.6.6.6, for=192.0.2.7", ("http", "orig", "192.0.2.7")),
        ("for=192.0.2.7;proto=https, for=10.1.1.1;proto=http", ("https", "orig", "192.0.2.7")),
        ("for=192.0.2.7, for=10.1.1.1;host=inner", ("http", "inner", "192.0.2.7")),
        ("for=_secret;proto=https", ("https", "orig", PROXY)),
        ("for=192.0.2.7;for=10.1.1.1", ("http", "orig", PROXY)),
        ("for=192.0.2.7;proto", ("http", "orig", PROXY)),
        ('for="127.0.0.1;host=evil.com;proto=https"', ("http", "orig", PROXY)),
        ('for="192.0.2.7', ("http", "orig", PROXY)),
        ("for=192.0.2.7;host=evil.com/x", ("http", "orig", PROXY)),
        ('for=192.0.2.7;host="evil.com/x"', ("http", "orig", "192.0.2.7")),
        ("", ("http", "orig", PROXY)),
        (",,;;=", ("http", "orig", PROXY)),
    ],
)
def test_reads_rfc_7239(field: str, expected: tuple[str, str, str]) -> None:
    """Quoted values, upper case, several elements; what is malformed says nothing."""
    assert CLIENT.require(seen({"headers": "forwarded"}, forwarded=field)) == expected


def test_reads_one_family_only() -> None:
    """The other one may come from the client, past a proxy that does not know it."""
    inner = seen(forwarded="for=6.6.6.6;proto=https", x_forwarded_for="192.0.2.7")

    assert CLIENT.require(inner) == ("http", "orig", "192.0.2.7")
    assert "HTTP_FORWARDED" not in inner


@pytest.mark.parametrize("peer", ["", "unix:", "localhost", "/run/app.sock", "@abstract"])
def test_believes_a_unix_socket_only_where_told_to(peer: str) -> None:
    """Servers write different things for such a peer."""
    trusted = inside(environ("GET", "/", REMOTE_ADDR=peer, x_forwarded_for="192.0.2.7"), trust=["unix"])
    stranger = inside(environ("GET", "/", REMOTE_ADDR=peer, x_forwarded_for="192.0.2.7"), trust=["0.0.0.0/1", "::/1"])

    assert CLIENT.require(trusted).address == "192.0.2.7"
    assert CLIENT.require(stranger).address == "unix"


@pytest.mark.parametrize(
    ("peer", "trust", "believed"),
    [
        ("::1", ["::1"], True),
        ("::ffff:10.0.0.1", ["10.0.0.0/8"], True),
        ("10.0.0.1", ["::/1"], False),
        ("garbage", ["10.0.0.0/8", "unix"], False),
        ("11.0.0.1", ["10.0.0.0/8"], False),
    ],
)
def test_matches_peers_by_network(peer: str, trust: list[str], believed: bool) -> None:
    """IPv4, IPv6, and IPv4 as a dual-stack socket shows it."""
    inner = inside(environ("GET", "/", REMOTE_ADDR=peer, x_forwarded_proto="https"), trust=trust)

    assert (inner["wsgi.url_scheme"] == "https") is believed


@pytest.mark.parametrize(
    ("headers", "host", "port"),
    [
        ({"x_forwarded_host": "a.example"}, "a.example", "80"),
        ({"x_forwarded_host": "a.example:81"}, "a.example:81", "81"),
        ({"x_forwarded_proto": "https"}, "orig", "443"),
        ({"x_forwarded_port": "443", "x_forwarded_proto": "https"}, "orig", "443"),
        ({"x_forwarded_port": "8080"}, "orig:8080", "8080"),
        ({"x_forwarded_port": "8080", "x_forwarded_host": "a.example:81"}, "a.example:81", "8080"),
        ({"x_forwarded_host": "[2001:db8::1]"}, "[2001:db8::1]", "80"),
        ({"x_forwarded_host": "[2001:db8::1]", "x_forwarded_port": "81"}, "[2001:db8::1]:81", "81"),
        ({"x_forwarded_host": "a.example, b.example"}, "b.example", "80"),
        ({"x_forwarded_host": "a@evil.example"}, "orig", "80"),
        ({"x_forwarded_host": "evil.example/x"}, "orig", "80"),
        ({"x_forwarded_port": "0"}, "orig", "80"),
        ({"x_forwarded_port": "80; x"}, "orig", "80"),
    ],
)
def test_knows_host_and_port(headers: dict[str, str], host: str, port: str) -> None:
    """The port follows the host, or the scheme; a malformed value is as none."""
    inner = seen(**headers)

    assert (inner["HTTP_HOST"], inner["SERVER_PORT"]) == (host, port)


@pytest.mark.parametrize(
    ("prefix", "expected"),
    [
        ("/app", "/app"),
        ("/app/", "/app"),
        ("/a/b", "/a/b"),
        ("/", ""),
        ("", None),
        ("app", None),
        ("//evil.com", None),
        ("/a//b", None),
        ("/app/../admin", None),
        ("/.", None),
        ("/a%2fb", None),
        ("/a\\b", None),
        ("/a\r\nX: y", None),
        ("/a?b", None),
        ("/é", None),
        ("/<script>", None),
    ],
)
def test_checks_a_prefix(prefix: str, expected: str | None) -> None:
    """It becomes part of every URL that the app writes."""
    assert parse_prefix(prefix) == expected


@pytest.mark.parametrize(
    ("script_name", "path", "target", "expected"),
    [
        ("/uw", "/uw/env", "/uw/env?x", ("/uw", "/env")),
        ("/uw", "/uw/env", "", ("/uw", "/env")),
        ("/uw", "/uw", "/uw", ("/uw", "")),
        ("/uw", "/uwx", "/uwx", ("/uw", "/uwx")),
        ("/uw", "/env", "/uw/env", ("/uw", "/env")),
        ("/uw", "/uw/env", "/uw/%75w/env", ("/uw", "/uw/env")),
        ("", "/uw/env", "/uw/env", ("", "/uw/env")),
    ],
)
def test_shifts_the_path_where_uwsgi_does_not(
    script_name: str, path: str, target: str, expected: tuple[str, str]
) -> None:
    """``uwsgi_param SCRIPT_NAME /uw`` leaves ``/uw`` at the start of ``PATH_INFO`` too."""
    request = environ("GET", path, mount=script_name, REQUEST_URI=target)

    inner = inside(request, fix_script_name=True)

    assert (inner["SCRIPT_NAME"], inner["PATH_INFO"]) == expected
    assert (expected[1] == path) or inner["lamella.proxy.original"] == {"PATH_INFO": path}


def test_without_a_host_the_server_s_own_is_the_client_s() -> None:
    """HTTP/1.0."""
    request = environ("GET", "/", SERVER_PORT="8080")
    del request["HTTP_HOST"]

    assert CLIENT.require(inside(request)).host == "localhost:8080"


#: What a proxy may say of a client, and who that is then; a peer that is believed says nothing else.
_SPELLINGS = {
    "192.0.2.7": "192.0.2.7",
    " 192.0.2.7\t": "192.0.2.7",
    "192.0.2.7:5678": "192.0.2.7",
    "2001:db8::1": "2001:db8::1",
    "[2001:db8::1]": "2001:db8::1",
    "[2001:DB8:0::1]:65535": "2001:db8::1",
    "::ffff:192.0.2.7": "192.0.2.7",
    "[::ffff:c000:207]:1": "192.0.2.7",
    "192.0.2.7:_port": "192.0.2.7",
    "": None,
    "unknown": None,
    "_hidden": None,
    "localhost": None,
    "192.0.2": None,
    "192.0.2.07": None,
    "192.0.2.256": None,
    "0x7f.0.0.1": None,
    "3221225991": None,
    "192.0.2.7:": None,
    "192.0.2.7:0": None,
    "192.0.2.7:65536": None,
    "192.0.2.7:80:80": None,
    "[2001:db8::1": None,
    "2001:db8::1]": None,
    "[192.0.2.7]": None,
    "fe80::1%eth0": None,
    "2001:db8:::1": None,
    "\u0661.2.3.4": None,
    "\xb2.2.3.4": None,
    "192.0.2.7\x00": None,
    '"192.0.2.7"': None,
}


@pytest.mark.parametrize("text", _SPELLINGS)
@pytest.mark.parametrize("before", ["", "6.6.6.6,", "6.6.6.6, 127.0.0.1 ,", ",,", "garbage,"])
@pytest.mark.parametrize("after", ["", ", 10.0.0.2", ",[::ffff:10.0.0.3]:80,10.0.0.2"])
def test_reads_every_spelling_of_an_address(text: str, before: str, after: str) -> None:
    """Behind whatever a client wrote to the left; where it is no address, the last one that is counts."""
    expected = _SPELLINGS[text] or {0: PROXY, 1: "10.0.0.2"}.get(after.count(","), "10.0.0.3")
    app = RecordingApp()
    request = {**environ("GET", "/", REMOTE_ADDR=PROXY), "HTTP_X_FORWARDED_FOR": before + text + after}

    call(ProxyMiddleware(app, trust=["10.0.0.0/8"]), request)

    assert app.environ["REMOTE_ADDR"] == expected


@pytest.mark.parametrize("text", [text for text in _SPELLINGS if text and text.isascii() and "\x00" not in text])
@pytest.mark.parametrize("before", ["", "for=6.6.6.6,", 'for="6.6.6.6, for=7.7.7.7",', ",,"])
def test_reads_every_spelling_of_a_node(text: str, before: str) -> None:
    """RFC 7239 quotes what is no token; what stands in quotes is one value."""
    quoted = text.replace('"', '\\"')
    app = RecordingApp()
    request = {**environ("GET", "/", REMOTE_ADDR=PROXY), "HTTP_FORWARDED": f'{before} FOR="{quoted}" ;Proto=HTTPS'}

    call(ProxyMiddleware(app, trust=["10.0.0.0/8"], headers="forwarded"), request)

    expected = _SPELLINGS[text] if text == text.strip() else None
    assert app.environ["REMOTE_ADDR"] == (expected or PROXY)


@pytest.mark.parametrize(
    "options",
    [
        {"trust": "10.0.0.0/8"},
        {"trust": ["*"]},
        {"trust": ["0.0.0.0/0"]},
        {"trust": ["::/0"]},
        {"trust": ["0.0.0.0/1", "128.0.0.0/2", "192.0.0.0/2"]},
        {"trust": ["::/1", "10.0.0.0/8", "8000::/1"]},
        {"trust": ["10.0.0.1/8"]},
        {"trust": ["proxy.local"]},
        {"trust": [1]},
        {"trust": None},
        {"trust": [], "headers": "both"},
        {"trust": [], "hops": 0},
        {"trust": [], "hops": True},
        {"trust": [], "fix_script_name": "/uw"},
    ],
)
def test_refuses_wrong_options(options: dict[str, Any]) -> None:
    """Above all a trust in everybody, which makes the layer a hole."""
    with pytest.raises(ConfigError):
        ProxyMiddleware(RecordingApp(), **options)


@given(
    st.sampled_from(["x-forwarded", "forwarded"]),
    st.dictionaries(
        st.sampled_from(
            ["FORWARDED", "X_FORWARDED_FOR", "X_FORWARDED_PROTO", "X_FORWARDED_HOST", "X_FORWARDED_PREFIX"]
        ),
        st.one_of(
            st.text(max_size=30),
            st.lists(
                st.sampled_from(["for=", "1.2.3.4", "[::1]:8", '"', ";", ",", "host=", "proto=https", " ", "/a"])
            ).map("".join),
        ),
    ),
)
def test_whatever_is_sent_the_environ_stays_sane(headers: str, fields: dict[str, str]) -> None:
    """An address is an address, a scheme a scheme, a host a host, and the path cannot lead away."""
    app = RecordingApp()
    sent = {"HTTP_" + name: value for name, value in fields.items()}
    request = {**environ("GET", "/", REMOTE_ADDR=PROXY), **sent}

    call(ProxyMiddleware(app, trust=["10.0.0.0/8"], headers=headers), request)

    client = CLIENT.require(app.environ)
    assert parse_node(client.address) is not None
    assert client.scheme in ("http", "https")
    assert parse_host(client.host) is not None
    assert not app.environ["SCRIPT_NAME"].startswith("//")


@pytest.mark.timing
@pytest.mark.parametrize("unit", [",", "1.2.3.4,", "10.0.0.2,", 'for="', "for=10.0.0.2,", "for=1;", "[", "\\", '"\\'])
def test_reading_is_linear(unit: str) -> None:
    """100 kB of hostile input take less than 50 ms and a little for each believed entry."""
    text = unit * (100_000 // len(unit))
    for headers, name in (("x-forwarded", "HTTP_X_FORWARDED_FOR"), ("forwarded", "HTTP_FORWARDED")):
        app = ProxyMiddleware(RecordingApp(), trust=["10.0.0.0/8"], headers=headers)
        request = {**environ("GET", "/", REMOTE_ADDR=PROXY), name: text}
        began = time.thread_time()
        call(app, request)
        assert time.thread_time() - began < 0.15


def test_remembers_peers_within_bounds() -> None:
    """A client with many addresses costs no memory; the same peer is judged alike each time."""
    app = RecordingApp()
    layer = ProxyMiddleware(app, trust=["10.0.0.0/8", "unix"])

    for number in [*range(3000), *range(10)]:
        octets = f"{number // 250}.{number % 250}"
        for peer, shown in ((f"198.51.{octets}", f"198.51.{octets}"), (f"10.0.{octets}", "203.0.113.9"), ("", "unix")):
            request = (
                environ("GET", "/", REMOTE_ADDR=peer, x_forwarded_for="203.0.113.9") if peer else environ("GET", "/")
            )
            call(layer, {**request, "REMOTE_ADDR": peer})
            assert CLIENT.require(app.environ).address == shown
            assert "HTTP_X_FORWARDED_FOR" not in app.environ

    for cell in layer.wsgi_closure.__closure__ or ():
        if isinstance(cell.cell_contents, dict):
            assert len(cell.cell_contents) <= 1024

"""HostsMiddleware: which hosts are served."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamella.middleware.hosts import HostsMiddleware
from lamella.stack.kernel.errors import ConfigError
from lamella.stack.testing import RecordingApp, call, environ, lint

CONTRACT = {"options": {"allow": ["localhost"]}}


def code(host: str | None, *allow: str, **changes: str) -> int:
    """The status for a request with that Host."""
    request = {**environ("GET", "/"), **changes}
    if host is None:
        del request["HTTP_HOST"]
    else:
        request["HTTP_HOST"] = host
    app = RecordingApp()
    response = call(lint(HostsMiddleware(app, allow=allow)) if (host or "").isascii() else _bare(app, allow), request)
    assert app.called == (response.code == 200)
    return response.code


def _bare(app: RecordingApp, allow: tuple[str, ...]) -> Any:
    return HostsMiddleware(app, allow=allow)


def test_holds_the_hosts_corpus(corpus: Any) -> None:
    """0 misses: what is listed is served, on any port and with a trailing dot; what is malformed is a 400."""
    data = corpus("hosts")
    plain = [host for host in data["ok"] if host.count(":") != 1 and "]:" not in host]
    allow = [*plain, ".example.com", "12.34.56.78", "[2001:19f0:feee::dead:beef:cafe]"]

    assert [host for host in data["ok"] if code(host, *allow) != 200] == []
    assert [host for host in data["bad"] if code(host, *allow) != 400] == []


@pytest.mark.parametrize(
    ("host", "allow", "expected"),
    [
        ("shop.example", "shop.example", 200),
        ("SHOP.example.", "shop.example", 200),
        ("shop.example:8443", "shop.example", 200),
        ("shop.example", "Shop.Example.", 200),
        ("shop.example:8443", "shop.example:8443", 200),
        ("shop.example", "shop.example:8443", 400),
        ("shop.example:1", "shop.example:8443", 400),
        ("a.shop.example", "*.shop.example", 200),
        ("a.b.shop.example", "*.shop.example", 200),
        ("shop.example", "*.shop.example", 400),
        ("shop.example", ".shop.example", 200),
        ("a.shop.example:80", ".shop.example", 200),
        ("a.shop.example:80", "*.shop.example:80", 200),
        ("a.shop.example:81", "*.shop.example:80", 400),
        ("evilshop.example", ".shop.example", 400),
        ("shop.example.evil.example", ".shop.example", 400),
        ("evil.example", "shop.example", 400),
        ("my_service:80", "my_service", 200),
        ("[::1]:80", "[::1]", 200),
        ("[0:0:0:0:0:0:0:1]", "[::1]", 200),
        ("127.0.0.1", "127.0.0.1", 200),
        ("127.1", "127.0.0.1", 400),
        ("0x7f000001", "127.0.0.1", 400),
        ("shop.example:99999", "shop.example", 400),
        ("shop.example:80:80", "shop.example", 400),
        ("..shop.example", ".shop.example", 400),
        ("a/?x=.shop.example", ".shop.example", 400),
        ("shop.example, evil.example", "shop.example", 400),
        ("shop.example evil", "shop.example", 400),
    ],
)
def test_allows_exactly_what_is_listed(host: str, allow: str, expected: int) -> None:
    """Exact, by port, below a name, or both; case and a trailing dot mean nothing."""
    assert code(host, allow) == expected


@pytest.mark.parametrize(
    ("protocol", "name", "expected"),
    [("HTTP/1.1", "shop.example", 400), ("HTTP/1.0", "shop.example", 200), ("HTTP/1.0", "other.example", 400)],
)
def test_a_missing_host_is_the_server_s_in_http_1_0(protocol: str, name: str, expected: int) -> None:
    """Later versions must send one."""
    assert code(None, "shop.example", SERVER_PROTOCOL=protocol, SERVER_NAME=name) == expected


def test_does_not_look_at_forwarded_hosts() -> None:
    """That is for ``proxy``, which knows whom to believe."""
    assert code("evil.example", "shop.example", HTTP_X_FORWARDED_HOST="shop.example") == 400


def test_does_not_repeat_the_host() -> None:
    """The answer holds none of the client's bytes."""
    response = call(HostsMiddleware(RecordingApp(), allow=["a.example"]), environ("GET", "/", host="<script>"))

    assert b"script" not in response.body


@given(st.text(max_size=40))
def test_any_host_is_200_or_400(host: str) -> None:
    """And a host that is served ends in one that is listed."""
    app = RecordingApp()
    request = {**environ("GET", "/"), "HTTP_HOST": host}

    response = call(HostsMiddleware(app, allow=[".a.example"]), request)

    assert response.code in (200, 400)
    assert response.code == 400 or ".a.example" in "." + host.lower()


@pytest.mark.timing
@pytest.mark.parametrize("unit", ["a.", ".", "a", "[", ":", "a.example", "1."])
def test_is_linear(unit: str) -> None:
    """100 kB of hostile input take less than 50 ms."""
    request = environ("GET", "/", host=unit * (100_000 // len(unit)))
    began = time.thread_time()

    call(HostsMiddleware(RecordingApp(), allow=[".a.example"]), request)

    assert time.thread_time() - began < 0.15


@pytest.mark.parametrize(
    "allow", ["a.example", [], ["*"], ["."], [""], ["*.*.example"], ["a b"], ["*.[::1]"], ["*.1.2.3.4"], [1]]
)
def test_refuses_wrong_options(allow: Any) -> None:
    """Above all "everything", which would make the layer a decoration."""
    with pytest.raises(ConfigError, match="allow"):
        HostsMiddleware(RecordingApp(), allow=allow)

"""Take from trusted proxies who the client is and what it asked for; remove what anybody else says of it.

Sets ``lamella.client``, ``REMOTE_ADDR``, ``wsgi.url_scheme``, ``HTTP_HOST``, ``SERVER_NAME``, ``SERVER_PORT`` and
``SCRIPT_NAME``; removes every forwarding header. What was there stays in ``lamella.proxy.original``.

.. code-block:: toml

    [[layer]]
    use   = "proxy"
    trust = ["10.0.0.0/8", "unix"]

Place it outside everything that reads the client's address, the scheme or the host. Without a proxy in front it is
useful too, with ``trust = []``: it then only removes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from ipaddress import collapse_addresses
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import unquote_to_bytes

from lamella.stack.kernel.environ import IDENTITY_HEADERS, direct
from lamella.stack.kernel.errors import ConfigError
from lamella.stack.kernel.keys import CLIENT, Client
from lamella.stack.kernel.options import Cidr, choice, cidr, flag, whole_number
from lamella.stack.kernel.order import Inside, Outside
from lamella.stack.kernel.paths import is_under

from ._proxy import Claims, is_unix, parse_address, read_forwarded, read_x_forwarded

if TYPE_CHECKING:
    from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

__all__ = ["ProxyMiddleware"]

#: Holds the environ as the server made it, as far as it was changed: key to value, None where there was none.
ORIGINAL = "lamella.proxy.original"
# Fields by which something in front says where a request came from or what it was. Inside this layer nothing
# has to ask who sent them.
_FORWARDING = frozenset(
    "HTTP_" + name
    for name in (
        "FORWARDED",
        "X_FORWARDED_FOR",
        "X_FORWARDED_PROTO",
        "X_FORWARDED_PROTOCOL",
        "X_FORWARDED_SCHEME",
        "X_FORWARDED_SSL",
        "X_FORWARDED_HOST",
        "X_FORWARDED_SERVER",
        "X_FORWARDED_PORT",
        "X_FORWARDED_PREFIX",
        "X_FORWARDED_BY",
        "X_FORWARDED_PATH",
        "X_FORWARDED_URI",
        "X_FORWARDED_METHOD",
        "X_REAL_IP",
        "X_CLIENT_IP",
        "X_CLUSTER_CLIENT_IP",
        "TRUE_CLIENT_IP",
        "CF_CONNECTING_IP",
        "FASTLY_CLIENT_IP",
        "X_URL_SCHEME",
        "FRONT_END_HTTPS",
        "X_ORIGINAL_HOST",
        "X_ORIGINAL_URL",
        "X_REWRITE_URL",
        "X_SCRIPT_NAME",
        # By these a client could make an app hand out files (Rack CVE-2025-61780, CVE-2026-34830).
        "X_SENDFILE_TYPE",
        "X_ACCEL_MAPPING",
    )
)
_UNTRUSTED = _FORWARDING | frozenset(IDENTITY_HEADERS)
_READERS = {"x-forwarded": read_x_forwarded, "forwarded": read_forwarded}
_PORTS = {"http": "80", "https": "443"}
_MEMO_SIZE = 1024
_READERS_OF = tuple(
    "access_log hosts https cors csrf session rate_limit login oidc basic_auth bearer_auth access dispatch".split()  # noqa: SIM905
)


class ProxyMiddleware:
    """Believe the proxies that are ours, and nobody else.

    The forwarding headers are read from the right, the end that the nearest proxy wrote, for as long as the
    address there is a trusted proxy's.

    Args:
        app: The application inside.
        trust: Networks of the proxies, such as ``"10.0.0.0/8"`` or ``"10.1.2.3"``, and ``"unix"`` for a peer on a unix
            socket. Empty: nobody is believed.
        headers: Which family the proxies send: ``"x-forwarded"`` or ``"forwarded"`` (RFC 7239). The other one is
            not read.
        hops: How many proxies a request passes, where that is known: no more entries are believed, and
            of a request with fewer none.
        fix_script_name: Remove ``SCRIPT_NAME`` from the start of ``PATH_INFO``, where the server left it there (uWSGI
            behind ``uwsgi_param SCRIPT_NAME``).

    Raises:
        ConfigError: *trust* is no list of networks or trusts everybody, *headers* is unknown, *hops* is below 1.
    """

    provides = (CLIENT,)
    requires = ()
    order = (
        Inside("edge", "L119", "forwarding headers are read from requests that were checked"),
        *(
            Outside(layer, "L105", "it reads the client's address, scheme or host, which only proxies know")
            for layer in _READERS_OF
        ),
    )
    streams = True

    def __init__(
        self,
        app: WSGIApplication,
        *,
        trust: Sequence[Cidr | Literal["unix"]],
        headers: str = "x-forwarded",
        hops: int | None = None,
        fix_script_name: bool = False,
    ) -> None:
        trusted, peers, judge = _trust(trust)
        read = _READERS[choice("headers", headers, tuple(_READERS))]
        if hops is not None:
            whole_number("hops", hops, 1, 100, "a number of proxies")
        fix = flag("fix_script_name", fix_script_name)
        inner = direct(app)
        key, new = CLIENT.name, tuple.__new__

        def wsgi_closure(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
            peer = environ.get("REMOTE_ADDR", "")
            believed, address = peers.get(peer) or judge(peer)
            # isdisjoint() builds nothing: half of the work of asking which fields there are.
            if not (_FORWARDING if believed else _UNTRUSTED).isdisjoint(environ):
                present = environ.keys() & (_FORWARDING if believed else _UNTRUSTED)
                claims = read(environ, trusted, hops) if believed else None
                changes: dict[str, Any] = dict.fromkeys(present)
                if claims is not None:
                    changes.update(_changes(environ, claims))
                _apply(environ, changes)
                address = _shown(environ.get("REMOTE_ADDR", ""))
            if fix and (shifted := _shifted_path(environ)) is not None:
                _apply(environ, {"PATH_INFO": shifted})
            host = environ.get("HTTP_HOST") or _server_host(environ)
            # As Client(...) does it, in half of its time.
            environ[key] = new(Client, (environ["wsgi.url_scheme"], host, address))
            return inner(environ, start_response)

        self.wsgi_closure = wsgi_closure

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        return self.wsgi_closure(environ, start_response)


def _trust(
    trust: Sequence[Cidr | Literal["unix"]],
) -> tuple[
    Callable[[IPv4Address | IPv6Address], bool], Mapping[str, tuple[bool, str]], Callable[[str], tuple[bool, str]]
]:
    """Return what tells whether an address is trusted, what is known of peers, and what finds it out.

    Of a peer it is known whether it is believed, and how to call it.

    Raises:
        ConfigError: See :class:`ProxyMiddleware`.
    """
    if isinstance(trust, (str, bytes, Mapping)) or not isinstance(trust, Iterable):
        raise ConfigError("trust", trust, 'a list of networks, such as ["10.0.0.0/8", "unix"]')
    networks: list[IPv4Network | IPv6Network] = []
    unix = False
    for item in trust:
        if item == "unix":
            unix = True
            continue
        network = None if item == "*" else cidr("trust", item)
        # A guard that trusts everybody is none (oauth2-proxy CVE-2026-76835).
        if network is None or network.prefixlen == 0:
            raise ConfigError(
                "trust", item, "the networks of your proxies; this would let every client name its address"
            )
        networks.append(network)
    by_version: dict[int, list[Any]] = {
        version: list(collapse_addresses(n for n in networks if n.version == version))  # type: ignore[type-var]
        for version in (4, 6)
    }
    if any(network.prefixlen == 0 for known in by_version.values() for network in known):
        raise ConfigError("trust", list(trust), "the networks of your proxies; these together are everybody's")
    peers: dict[str, tuple[bool, str]] = {}

    def trusted(address: IPv4Address | IPv6Address) -> bool:
        return any(address in network for network in by_version[address.version])

    def judge(peer: str) -> tuple[bool, str]:
        address = parse_address(peer)
        believed = trusted(address) if address is not None else unix and is_unix(peer)
        if len(peers) >= _MEMO_SIZE:
            peers.clear()
        found = peers[peer] = believed, _shown(peer)
        return found

    return trusted, peers, judge


def _shown(address: str) -> str:
    """How a client at *address* is called."""
    return "unix" if is_unix(address) else address


def _changes(environ: WSGIEnvironment, claims: Claims) -> dict[str, Any]:
    """What *claims* make of the environ; None removes a key."""
    changes: dict[str, Any] = {}
    if claims.address is not None:
        changes.update(REMOTE_ADDR=claims.address, REMOTE_PORT=claims.port, REMOTE_HOST=None)
    scheme = claims.scheme or environ["wsgi.url_scheme"]
    if claims.scheme is not None:
        changes["wsgi.url_scheme"] = scheme
        changes["HTTPS"] = "on" if scheme == "https" else None
    port = claims.server_port
    if claims.host is not None:
        changes["HTTP_HOST"] = claims.host
    host: str = claims.host or environ.get("HTTP_HOST", "")
    name, colon, written = host.rpartition(":")
    if not colon or not written.isdigit():  # no port, or the end of a bare IPv6 address
        name, written = host, ""
    if claims.host is not None:
        changes["SERVER_NAME"] = name
    if port is not None:
        changes["SERVER_PORT"] = port
        if host and not written and port != _PORTS[scheme]:
            changes["HTTP_HOST"] = f"{host}:{port}"
    elif claims.host is not None or claims.scheme is not None:
        changes["SERVER_PORT"] = written or _PORTS[scheme]
    if claims.prefix:
        changes["SCRIPT_NAME"] = claims.prefix + environ.get("SCRIPT_NAME", "")
    return changes


def _apply(environ: WSGIEnvironment, changes: Mapping[str, Any]) -> None:
    """Change the environ, and keep what was there at first."""
    original = environ.setdefault(ORIGINAL, {})
    for key, value in changes.items():
        if environ.get(key) == value:
            continue
        original.setdefault(key, environ.get(key))
        if value is None:
            del environ[key]
        else:
            environ[key] = value


def _shifted_path(environ: WSGIEnvironment) -> str | None:
    """The path without ``SCRIPT_NAME``, where the server left it there; None where it did not.

    Where the request target is known to be both of them together, a path that repeats the script name is meant so.
    """
    script_name: str = environ.get("SCRIPT_NAME", "")
    path: str = environ.get("PATH_INFO", "")
    if not script_name or not is_under(path, script_name):
        return None
    target = environ.get("REQUEST_URI", "").partition("?")[0]
    if target and unquote_to_bytes(target.encode("latin-1", "replace")).decode("latin-1") == script_name + path:
        return None
    return path[len(script_name) :]


def _server_host(environ: WSGIEnvironment) -> str:
    """Host and port of the server (PEP 3333, "URL Reconstruction")."""
    name, port = environ.get("SERVER_NAME", ""), environ.get("SERVER_PORT", "")
    return name if port == _PORTS.get(environ["wsgi.url_scheme"]) or not port else f"{name}:{port}"

"""Give each request an identifier: in the environ, and on the answer.

Sets ``lamella.request_id`` and the response header ``X-Request-ID``.

.. code-block:: toml

    [[layer]]
    use = "request_id"

Place it outside ``access_log`` and ``errors``, so that both know the identifier.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from lamella.stack.kernel.environ import direct, header_key
from lamella.stack.kernel.errors import ConfigError
from lamella.stack.kernel.keys import REQUEST_ID
from lamella.stack.kernel.options import header_name
from lamella.stack.kernel.response import edit_headers

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

__all__ = ["RequestIdMiddleware"]

# What we take from a client that is trusted to name its requests: long enough to be unique, safe in logs.
_WELL_FORMED = re.compile(r"[A-Za-z0-9._~+/=:-]{16,200}")


def _uuid4() -> str:
    return str(uuid.uuid4())


class RequestIdMiddleware:
    """Identify each request.

    Args:
        app: The application inside.
        header: Name of the request and response header.
        trust_client: Keep an identifier the client sent, where it is well formed (16 to 200
            characters of base64, UUIDs and the like). Only behind a proxy that sets it itself.
        generator: ``"uuid4"``, or a callable without arguments that returns a new identifier.

    Raises:
        ConfigError: *header* is not a header name, or *generator* is unknown.
    """

    provides = (REQUEST_ID,)
    requires = ()
    order = ()
    streams = True

    def __init__(
        self,
        app: WSGIApplication,
        *,
        header: str = "X-Request-ID",
        trust_client: bool = False,
        generator: str | Callable[[], str] = "uuid4",
    ) -> None:
        header = header_name("header", header)
        if isinstance(generator, str):
            if generator != "uuid4":
                raise ConfigError("generator", generator, '"uuid4" or a callable')
            generator = _uuid4
        generate, inner = generator, direct(app)
        environ_key, key = header_key(header), REQUEST_ID.name

        def wsgi_closure(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
            request_id = environ.get(key)
            if request_id is None:
                request_id = (_from_client(environ, environ_key) if trust_client else None) or generate()
                environ[key] = request_id
            echo = (header, request_id)
            return inner(environ, edit_headers(start_response, lambda headers: [*headers, echo]))

        self.wsgi_closure = wsgi_closure

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        return self.wsgi_closure(environ, start_response)


def _from_client(environ: WSGIEnvironment, key: str) -> str | None:
    """The identifier that the client sent, if it is well formed."""
    sent: str = environ.get(key, "")
    return sent if _WELL_FORMED.fullmatch(sent) else None

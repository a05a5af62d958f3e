"""Files as an app to mount: ``StaticMiddleware`` around nothing but a 404.

.. code-block:: python

    DispatchMiddleware(app, mounts={"/assets": StaticApp(root="public")})
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from lamella.middleware.static import StaticMiddleware
from lamella.stack.kernel.keys import STATIC
from lamella.stack.kernel.paths import AmbiguousPathError, canonical_path
from lamella.stack.kernel.response import answer, refuse
from lamella.stack.kernel.static_urls import StaticUrls

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment

__all__ = ["StaticApp", "StaticUrls", "static_url"]


def static_url(environ: WSGIEnvironment, name: str) -> str:
    """Return the address of a static file, with the hash in its name where the manifest has one.

    Args:
        environ: The request, or an object that has it as ``environ`` (a request of the router).
        name: Relative to the root, such as ``css/app.css``.

    Raises:
        MissingLayerError: No ``static`` layer with a manifest is outside.
    """
    return STATIC.require(getattr(environ, "environ", environ))(name)


class StaticApp:
    """Serve the files of a folder; everything else is 404.

    Args:
        **options: Those of :class:`~lamella.middleware.static.StaticMiddleware`; ``root`` is required.

    Raises:
        ConfigError: As there.
    """

    def __init__(self, **options: Any) -> None:
        self.wsgi_closure = StaticMiddleware(_not_found, **options).wsgi_closure

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        return self.wsgi_closure(environ, start_response)


def _not_found(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Answer 404, or 400 for a path that can be read in two ways."""
    try:
        canonical_path(environ)
    except AmbiguousPathError as error:
        return refuse(environ, start_response, error)
    return answer(environ, start_response, "404 Not Found", b"not found\n", [("X-Content-Type-Options", "nosniff")])

"""WebOb's HTTP exceptions, imported with the first of them: they cost as much as the rest of the router."""

from __future__ import annotations

import sys
from typing import Any

__all__ = ["http_exceptions", "is_http_exception"]


def http_exceptions() -> Any:
    """Return ``webob.exc``, which has no annotations."""
    from webob import exc

    return exc


def is_http_exception(value: object) -> bool:
    """Tell whether *value* is one of them; none is where nobody imported them yet."""
    kind = getattr(sys.modules.get("webob.exc"), "WSGIHTTPException", None)
    return kind is not None and isinstance(value, kind)

"""What ``login`` reads of a request: its forms, where it comes from, and where the browser wanted to go."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, quote

from lamella.stack.kernel.body import BodyReader, body_length
from lamella.stack.kernel.errors import BadRequestError
from lamella.stack.kernel.http import parse_origin, parse_parameters
from lamella.stack.kernel.keys import CSRF
from lamella.stack.kernel.targets import encode_target, own_origin

if TYPE_CHECKING:
    from wsgiref.types import WSGIEnvironment

__all__ = ["csrf_field", "is_own", "own_address", "parse_form", "read_form", "says_own", "wanted_target"]

# Octets of a form with a name, a password and an address.
_MAX_FORM = 16_384


def own_address(environ: WSGIEnvironment, path: str) -> str:
    """The address of one of our paths, percent-encoded, below where we are mounted."""
    script_name: str = environ.get("SCRIPT_NAME", "")
    return quote(script_name.encode("latin-1")) + encode_target(path)


def wanted_target(environ: WSGIEnvironment) -> tuple[str, str]:
    """Where we are mounted, and what the browser asked for; empty where it cannot be asked for again by a link."""
    mount: str = environ.get("SCRIPT_NAME", "")
    if environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
        return mount, ""
    path: str = mount + environ.get("PATH_INFO", "")
    query: str = environ.get("QUERY_STRING", "")
    target = quote(path.encode("latin-1"), safe="/~!$&'()*+,;=:@-._") + (f"?{query}" if query else "")
    return mount, target if len(target) <= 2048 and target.isascii() and target.isprintable() else ""


def says_own(environ: WSGIEnvironment) -> bool:
    """Tell whether the browser itself says that the form was on our page."""
    return is_own(environ) and ("HTTP_SEC_FETCH_SITE" in environ or "HTTP_ORIGIN" in environ)


def is_own(environ: WSGIEnvironment) -> bool:
    """Tell whether nothing says that another site sent the form (Fetch metadata; RFC 6454 section 7)."""
    site = environ.get("HTTP_SEC_FETCH_SITE")
    if site is not None and site not in ("same-origin", "none"):
        return False
    origin = environ.get("HTTP_ORIGIN")
    return origin is None or parse_origin(origin) == (own_origin(environ) or "")


def read_form(environ: WSGIEnvironment) -> dict[str, str]:
    """Read an urlencoded form.

    Raises:
        BadRequestError: It is of another type, too large, cut off, or not UTF-8.
    """
    parsed = parse_parameters(environ.get("CONTENT_TYPE", ""))
    if parsed is None or parsed[0].lower() != "application/x-www-form-urlencoded":
        raise BadRequestError("the form must be urlencoded", "415 Unsupported Media Type")
    length = body_length(environ)
    if length is not None and length > _MAX_FORM:
        raise BadRequestError("the form is too large", "413 Content Too Large")
    octets = BodyReader(environ["wsgi.input"], length).read(_MAX_FORM + 1)
    if len(octets) > _MAX_FORM:
        raise BadRequestError("the form is too large", "413 Content Too Large")
    if length is not None and len(octets) < length:
        raise BadRequestError("the form is cut off")
    fields = parse_form(octets.decode("latin-1"))
    if fields is None:
        raise BadRequestError("the form is malformed")
    return fields


def parse_form(text: str) -> dict[str, str] | None:
    """The first of each name; None where it is no form in UTF-8."""
    try:
        pairs = parse_qsl(text, keep_blank_values=True, errors="strict", max_num_fields=32)
    except ValueError:
        return None
    fields: dict[str, str] = {}
    for name, value in pairs:
        fields.setdefault(name, value)
    return fields


def csrf_field(environ: WSGIEnvironment) -> dict[str, str]:
    """The field that a ``csrf`` layer outside wants to see."""
    source = CSRF.get(environ)
    return {} if source is None else {source.field: source.token()}

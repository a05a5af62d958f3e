"""The listing of a folder: a page for people, JSON for programs."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import os
import stat
from collections.abc import Iterable
from functools import lru_cache
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, quote

from lamella.stack.kernel.http import accepts, format_date
from lamella.stack.kernel.records import Record
from lamella.stack.kernel.response import answer

from ._static_lookup import is_hidden, open_beneath

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment

__all__ = ["Item", "answer_listing", "items_of"]

_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:60rem;padding:0 1rem;color-scheme:light dark}"
    "table{border-collapse:collapse;width:100%}th,td{padding:.25rem .5rem;text-align:left}"
    "td+td,th+th{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}"
    "tr:nth-child(even){background:#8881}a{text-decoration:none}a:hover{text-decoration:underline}"
)
_COLUMNS = {"name": "Name", "size": "Size", "modified": "Modified"}


class Item(Record):
    """One line of a listing."""

    name: str
    is_folder: bool
    #: Bytes; 0 for a folder.
    size: int
    #: Seconds since the epoch.
    modified: int


def items_of(roots: Iterable[str], relative: str, symlinks: str, visible: frozenset[str] | None) -> list[Item] | None:
    """List what may be served of a folder; None where no root has it.

    Args:
        roots: The first that has a name wins it.
        relative: Canonical, starts and ends with a slash.
        symlinks: ``none``, ``inside`` or ``all``.
        visible: See :func:`is_hidden`.
    """
    found: dict[str, Item] | None = None
    for root in roots:
        descriptor = open_beneath(root, relative, symlinks, folder=True)
        if descriptor is None:
            continue
        os.close(descriptor)
        found = {} if found is None else found
        for name in _names(root + relative):
            if name not in found and not is_hidden("/" + name, visible):
                item = _item(root, relative, name, symlinks)
                if item is not None:
                    found[name] = item
    return None if found is None else list(found.values())


def _names(folder: str) -> list[str]:
    """Return the names in a folder that text can hold."""
    try:
        names = os.listdir(folder)
    except OSError:
        return []
    return [name for name in names if "\\" not in name and name.isprintable()]


def _item(root: str, relative: str, name: str, symlinks: str) -> Item | None:
    """Describe one name; None for what would not be served."""
    path = root + relative + name
    try:
        link = os.lstat(path)
        found = os.stat(path) if stat.S_ISLNK(link.st_mode) else link
    except OSError:
        return None
    is_folder = stat.S_ISDIR(found.st_mode)
    if not is_folder and not stat.S_ISREG(found.st_mode):
        return None
    if found is not link:
        descriptor = open_beneath(root, relative + name, symlinks, folder=is_folder)
        if descriptor is None:
            return None
        os.close(descriptor)
    return Item(name, is_folder, 0 if is_folder else found.st_size, int(found.st_mtime))


def answer_listing(
    environ: WSGIEnvironment, start_response: StartResponse, title: str, items: list[Item], *, has_parent: bool
) -> list[bytes]:
    """Send a listing: as JSON where the client prefers it, else as a page.

    The query ``?sort=name|size|modified&order=asc|desc`` orders it; folders come first.
    """
    query = (
        parse_qs(environ.get("QUERY_STRING", ""), max_num_fields=20)
        if len(environ.get("QUERY_STRING", "")) < 200
        else {}
    )
    sort = query.get("sort", ["name"])[0]
    sort = sort if sort in _COLUMNS else "name"
    descending = query.get("order", ["asc"])[0] == "desc"
    items = sorted(items, key=lambda item: item.name)
    items.sort(key=lambda item: getattr(item, sort), reverse=descending)
    items.sort(key=lambda item: not item.is_folder)
    headers = [
        ("Cache-Control", "no-cache"),
        ("Vary", "Accept"),
        ("X-Content-Type-Options", "nosniff"),
    ]
    wanted = accepts(environ.get("HTTP_ACCEPT", ""), ("text/html", "application/json"))
    if wanted == "application/json":
        body = json.dumps([_as_json(item) for item in items], ensure_ascii=False).encode("utf-8", "replace")
        return answer(environ, start_response, "200 OK", body, headers, content_type="application/json")
    headers.append(("Content-Security-Policy", f"default-src 'none'; style-src 'sha256-{_style_hash()}'"))
    page = _page(title, items, sort, descending, has_parent).encode("utf-8", "replace")
    return answer(environ, start_response, "200 OK", page, headers, content_type="text/html; charset=utf-8")


@lru_cache(maxsize=1)
def _style_hash() -> str:
    return base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()


def _as_json(item: Item) -> dict[str, object]:
    return {
        "name": item.name,
        "type": "folder" if item.is_folder else "file",
        "size": None if item.is_folder else item.size,
        "modified": format_date(item.modified),
    }


def _page(title: str, items: list[Item], sort: str, descending: bool, has_parent: bool) -> str:
    heads = []
    for column, label in _COLUMNS.items():
        order = "desc" if column == sort and not descending else "asc"
        arrow = (" ↓" if descending else " ↑") if column == sort else ""
        heads.append(f'<th><a href="?sort={column}&amp;order={order}">{label}{arrow}</a></th>')
    rows = ['<tr><td><a href="../">../</a></td><td></td><td></td></tr>'] if has_parent else []
    for item in items:
        slash = "/" if item.is_folder else ""
        # "./" before the name: one such as "javascript:alert(1)" must not become a scheme.
        href = html.escape("./" + quote(item.name, safe="") + slash)
        size = "" if item.is_folder else f"{item.size:,}"
        rows.append(
            f'<tr><td><a href="{href}">{html.escape(item.name)}{slash}</a></td>'
            f"<td>{size}</td><td>{format_date(item.modified)}</td></tr>"
        )
    name = html.escape(title)
    return (
        f'<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n<title>{name}</title>\n'
        f'<meta name="viewport" content="width=device-width">\n<style>{_STYLE}</style>\n<h1>{name}</h1>\n'
        f"<table>\n<tr>{''.join(heads)}</tr>\n" + "\n".join(rows) + "\n</table>\n</html>\n"
    )

"""Serve files: conditional, in ranges, precompressed, and none that lies outside the root.

A path that names no file goes to the app inside. Sets ``lamella.static`` where there is a manifest.

.. code-block:: toml

    [[layer]]
    use    = "static"
    root   = "public"
    prefix = "/static"

Place it inside ``security_headers``, so that files carry its headers, and outside ``session``,
so that no file costs a session or gets a cookie. What only some may see belongs inside the auth layer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from lamella.stack.kernel.environ import direct
from lamella.stack.kernel.errors import ConfigError
from lamella.stack.kernel.http import is_token
from lamella.stack.kernel.keys import STATIC
from lamella.stack.kernel.options import Duration, FilePath, Regex, Size, choice, flag, size, strings, whole_number
from lamella.stack.kernel.order import Inside, Outside

from ._static_answer import (
    chooser,
    responder,
)
from ._static_files import CODINGS, Loader
from ._static_find import Finder
from ._static_lookup import roots_of
from ._static_misses import missing, sender
from ._static_modes import below_only, immutable_closure, live_closure
from ._static_options import (
    Budget,
    cache_control_of,
    names_of,
    page_of,
    prefix_of,
    providing,
    sendfile_of,
    visible_dotfiles,
)
from ._static_rules import Rules, header_rules, immutable_test
from ._static_types import content_types

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

__all__ = ["StaticMiddleware"]


class StaticMiddleware:
    """Serve the files of a folder, and pass every other request on.

    Args:
        app: The application inside.
        root: Folder, or several of which the first that has the file wins.
            ``package:my.package/static`` is the folder ``static`` in the package ``my.package``.
        prefix: Path below which the files are; ``/`` for the whole mount.
        mode: ``live`` asks the file system at each request. ``immutable`` lists the files once, when
            the stack is built, and keeps them in memory: for files that change only with the process.
        index: Name of the file that stands for a folder, or several; empty for none.
        listing: List folders without an index, as a page or as JSON.
        fallback: File for navigations that nothing else answers (a single-page app): instead of the
            404 of the app inside, with status 200.
        symlinks: Follow links that lead to a place ``inside`` the root, ``all`` of them, or ``none``.
        dotfiles: Serve names that begin with a dot; or the list of those to serve, such as ``.well-known``.
        immutable: Names whose content never changes, as they have a hash in them: a regular
            expression for the name or the path below the prefix, a callable that takes that path, or true for
            the usual forms. Caches keep them for a year.
        not_found: File for the 404 of paths below the prefix, with status 404.
        clean_urls: Serve ``about.html`` as ``/about``, and redirect the long form to the short one.
        headers: Header fields by pattern: ``*`` within a folder, ``**`` across; later ones win.
        types: Media types by extension or whole name, besides the built-in table.
        charset: Said of text types that name none; empty to say nothing.
        max_age: How long caches may use a file without asking. Unset: ``no-cache`` in live mode, which
            costs a 304, and a minute in immutable mode.
        encodings: Content codings whose precompressed siblings are sent, best first.
        sendfile: Let the front server send: ``x-accel-redirect`` (nginx) or ``x-sendfile`` (Apache, lighttpd).
            Conditions, ranges and codings are its affair then.
        sendfile_map: Folder to the internal address (nginx) or folder where the front server finds it.
        manifest: What ``lamella static build`` wrote; gives ``lamella.static`` to the apps inside.
        memory: Most bytes of small files to hold in memory; 0 holds none.
        max_ranges: Most parts of one answer; a request for more gets the whole file.

    Raises:
        ConfigError: A root or a manifest is missing, or an option is malformed.
    """

    provides = (STATIC,)
    requires = ()
    order = (
        Inside("security_headers", "L109", "files would lack the security headers"),
        Outside("session", "L110", "every file would read the session and could get its cookie"),
    )
    streams = True

    def __init__(
        self,
        app: WSGIApplication,
        *,
        root: FilePath | Sequence[FilePath],
        prefix: str = "/",
        mode: str = "live",
        index: str | Sequence[str] = "index.html",
        listing: bool = False,
        fallback: str | None = None,
        symlinks: str = "inside",
        dotfiles: bool | Sequence[str] = False,
        immutable: Regex | Callable[[str], bool] | bool | None = None,
        not_found: str | None = None,
        clean_urls: bool = False,
        headers: Mapping[str, Mapping[str, str]] = {},
        types: Mapping[str, str] = {},
        charset: str = "utf-8",
        max_age: Duration | None = None,
        encodings: Sequence[str] = ("zstd", "br", "gzip"),
        sendfile: str | None = None,
        sendfile_map: Mapping[str, str] = {},
        manifest: FilePath | None = None,
        memory: Size = "32 MiB",
        max_ranges: int = 64,
    ) -> None:
        roots = roots_of("root", root)
        base = prefix_of(prefix)
        choice("mode", mode, ("live", "immutable"))
        choice("symlinks", symlinks, ("none", "inside", "all"))
        if not isinstance(charset, str) or (charset and not is_token(charset)):
            raise ConfigError("charset", charset, "a charset such as utf-8")
        whole_number("max_ranges", max_ranges, 1, 10_000, "a number of parts")
        for option, value in (("listing", listing), ("clean_urls", clean_urls)):
            flag(option, value)
        budget = Budget(size("memory", memory))
        rules = Rules(
            content_types("types", types),
            charset,
            cache_control_of(max_age, mode),
            immutable_test("immutable", immutable),
            header_rules("headers", headers),
        )
        codings = strings("encodings", encodings, CODINGS.__contains__, "zstd, br, gzip")
        loader = Loader(symlinks, codings, rules)
        finder = Finder(roots, loader, names_of("index", index), listing, clean_urls, visible_dotfiles(dotfiles))
        inner = providing(direct(app), base, manifest, mode)
        choose = chooser()
        pages = {"fallback": page_of("fallback", fallback), "not_found": page_of("not_found", not_found)}
        kept = {option: finder.page(page) for option, page in pages.items()} if mode == "immutable" else {}
        for option, entry in kept.items():
            if entry is None and pages[option] is not None:
                raise ConfigError(option, pages[option], "a file in the root")
        miss = missing(inner, finder, loader, pages, kept)
        respond = responder(loader, choose, miss, max_ranges, sendfile_of(sendfile, sendfile_map, roots))
        send = sender(base, finder, respond, miss)

        if mode == "live":
            self.wsgi_closure = live_closure(base, inner, finder, choose, respond, send, miss, budget)
        else:
            outside = inner if miss is inner else below_only(base, inner, miss)
            self.wsgi_closure = immutable_closure(base, finder, respond, send, outside, budget)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        closure = self.wsgi_closure  # a call of an attribute costs more
        return closure(environ, start_response)

"""Addresses of static files, hashed names included: what templates and views ask for.

``lamella static build`` writes a manifest: a JSON object whose ``files`` map each name to the
name with a hash of the content in it. The layer ``static`` with the option ``manifest`` puts the
addresses into the environ as ``lamella.static``.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING
from urllib.parse import quote

from .errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from wsgiref.types import WSGIEnvironment

__all__ = ["StaticUrls"]


class StaticUrls:
    """Makes addresses of static files: call it with a name, such as ``css/app.css``.

    Args:
        prefix: Where the files are served: the ``prefix`` of the layer, or a whole ``https://…``.
        manifest: Path of the manifest, or what it holds; None for plain names.
        strict: A name that the manifest lacks is an error instead of a plain address.
        reload: Read the manifest again when it changes; one that is missing is empty.

    Raises:
        ConfigError: The manifest cannot be read, and *reload* is off.
    """

    __slots__ = ("_base", "_changed", "_files", "_path", "_reload", "_strict", "mount", "prefix")

    def __init__(
        self,
        prefix: str = "/",
        manifest: str | os.PathLike[str] | Mapping[str, str] | None = None,
        *,
        strict: bool = False,
        reload: bool = False,
    ) -> None:
        self.prefix = prefix.rstrip("/") + "/"
        self.mount = ""
        self._base = self
        self._strict = strict
        self._reload = reload
        self._changed = -1
        self._path: str | None = None
        if manifest is None:
            self._files: Mapping[str, str] = {}
        elif isinstance(manifest, (str, os.PathLike)):
            self._path = os.fspath(manifest)
            self._files = {} if reload else _read(self._path)
        else:
            self._files = dict(manifest)

    def at(self, mount: str) -> StaticUrls:
        """Return the same addresses below *mount*, the ``SCRIPT_NAME`` that the layer saw."""
        bound: StaticUrls = object.__new__(StaticUrls)
        bound._base, bound._strict, bound.prefix = self._base, self._strict, self.prefix
        bound.mount = mount
        return bound

    def __call__(self, name: str, environ: WSGIEnvironment | None = None) -> str:
        """Return the address of *name*, percent-encoded.

        Args:
            name: Relative to the root, as before hashing. A fragment or query stays behind it.
            environ: Where the object is not bound to a request: takes ``SCRIPT_NAME`` from it.

        Raises:
            KeyError: The manifest has no such name, and *strict* is on.
        """
        cut = min((at for at in (name.find("?"), name.find("#")) if at >= 0), default=len(name))
        plain, rest = name[:cut].lstrip("/"), name[cut:]
        files = self._base._current()
        if self._strict and plain not in files:
            raise KeyError(f"no static file {plain!r} in the manifest; run: lamella static build")
        mount = self.mount if environ is None else environ.get("SCRIPT_NAME", "")
        place = self.prefix if "://" in self.prefix else quote((mount + self.prefix).encode("latin-1", "replace"))
        return place + quote(files.get(plain, plain)) + rest

    def _current(self) -> Mapping[str, str]:
        """Return the names, read again where the manifest changed."""
        if self._reload and self._path is not None:
            try:
                changed = os.stat(self._path).st_mtime_ns
            except OSError:
                return {}
            if changed != self._changed:
                try:
                    self._files = _read(self._path)
                except ConfigError:  # half written: the next call finds it whole
                    return self._files
                self._changed = changed
        return self._files


def _read(path: str) -> dict[str, str]:
    """Read a manifest.

    Raises:
        ConfigError: It is missing, or no manifest.
    """
    try:
        with open(path, encoding="utf-8") as file:
            content = json.load(file)
        files = content["files"]
        if not all(isinstance(value, str) for value in files.values()):
            raise TypeError
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise ConfigError("manifest", path, "a manifest that `lamella static build` wrote") from None
    return dict(files)

"""Content codings as one small interface: compress a block so that it can be decoded at once, and finish."""

from __future__ import annotations

import secrets
import zlib
from collections.abc import Callable
from typing import Any, Protocol

from lamella.stack.kernel.errors import import_extra

__all__ = ["CODINGS", "Compressor", "PaddedGzip", "maker"]

#: RFC 9110 section 8.4.1, RFC 7932, RFC 8878: what can be asked for, fastest to decode first.
CODINGS = ("zstd", "br", "gzip")

# Levels at which text shrinks by about 75 % at 30 MB/s and more, measured on HTML and JSON of 10 kB.
_GZIP_LEVEL = 5
_BROTLI_QUALITY = 4
_ZSTD_LEVEL = 4
#: "Heal the BREACH" adds up to 100 bytes; Django does the same.
_MOST_PADDING = 100


class Compressor(Protocol):
    """One answer's compressor."""

    def block(self, data: bytes) -> bytes:
        """Return compressed *data*, flushed: the client can decode all of it now."""

    def last(self, data: bytes = b"") -> bytes:
        """Return compressed *data* and the end of the stream."""


class _Gzip:
    """RFC 1952; zlib writes the time 0, so that equal content is equal bytes."""

    __slots__ = ("_deflate",)

    def __init__(self) -> None:
        self._deflate = zlib.compressobj(_GZIP_LEVEL, zlib.DEFLATED, 31)

    def block(self, data: bytes) -> bytes:
        return self._deflate.compress(data) + self._deflate.flush(zlib.Z_SYNC_FLUSH)

    def last(self, data: bytes = b"") -> bytes:
        return self._deflate.compress(data) + self._deflate.flush()


class PaddedGzip:
    """gzip with a file name of random length in its header (RFC 1952 section 2.3: FNAME).

    The length of the answer then says little of a secret that is compressed together with what an
    attacker chose (BREACH).
    """

    __slots__ = ("_crc", "_deflate", "_head", "_size")

    def __init__(self) -> None:
        name = b"a" * (1 + secrets.randbelow(_MOST_PADDING))
        self._head = b"\x1f\x8b\x08\x08\x00\x00\x00\x00\x00\xff" + name + b"\x00"
        self._deflate = zlib.compressobj(_GZIP_LEVEL, zlib.DEFLATED, -15)
        self._crc = self._size = 0

    def _add(self, data: bytes) -> bytes:
        head, self._head = self._head, b""
        self._crc = zlib.crc32(data, self._crc)
        self._size = (self._size + len(data)) & 0xFFFFFFFF
        return head + self._deflate.compress(data)

    def block(self, data: bytes) -> bytes:
        return self._add(data) + self._deflate.flush(zlib.Z_SYNC_FLUSH)

    def last(self, data: bytes = b"") -> bytes:
        compressed = self._add(data) + self._deflate.flush()
        return compressed + self._crc.to_bytes(4, "little") + self._size.to_bytes(4, "little")


class _Brotli:
    __slots__ = ("_compressor",)

    def __init__(self, module: Any) -> None:
        self._compressor = module.Compressor(quality=_BROTLI_QUALITY)

    def block(self, data: bytes) -> bytes:
        compressed: bytes = self._compressor.process(data) + self._compressor.flush()
        return compressed

    def last(self, data: bytes = b"") -> bytes:
        compressed: bytes = (self._compressor.process(data) if data else b"") + self._compressor.finish()
        return compressed


class _Zstd:
    __slots__ = ("_compressor", "_flush")

    def __init__(self, module: Any) -> None:
        # RFC 8878 section 3.1.1.1.2: browsers decode windows of up to 8 MiB; level 4 needs 2 MiB.
        self._compressor = module.ZstdCompressor(level=_ZSTD_LEVEL, write_content_size=False).compressobj()
        self._flush = module.COMPRESSOBJ_FLUSH_BLOCK

    def block(self, data: bytes) -> bytes:
        compressed: bytes = self._compressor.compress(data) + self._compressor.flush(self._flush)
        return compressed

    def last(self, data: bytes = b"") -> bytes:
        compressed: bytes = self._compressor.compress(data) + self._compressor.flush()
        return compressed


def maker(coding: str) -> Callable[[], Compressor]:
    """Return what makes a compressor for *coding*, one of :data:`CODINGS`.

    Raises:
        MissingExtraError: Its library is not installed.
    """
    if coding == "gzip":
        return _Gzip
    if coding == "br":
        brotli = import_extra("brotli", "compress")
        return lambda: _Brotli(brotli)
    zstandard = import_extra("zstandard", "compress")
    return lambda: _Zstd(zstandard)

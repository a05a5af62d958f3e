"""The bodies of ``access_log``: what counts the bytes that were handed out, and tells when they end."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from lamella.stack.kernel.response import close, get_header

__all__ = ["Blocks", "Body", "Finish", "hook_file"]

Finish = Callable[[int | None, bool, float, BaseException | None], None]


class Blocks:
    """A list or tuple of blocks: the server iterates the list itself, and ``close()`` sees how far it came.

    No subclass of list: granian joins those and never calls their ``close()``.
    """

    __slots__ = ("_begun", "_blocks", "_clock", "_finish", "_iterator")

    def __init__(self, blocks: list[bytes] | tuple[bytes, ...], finish: Finish, clock: Callable[[], float]) -> None:
        self._blocks = blocks
        self._finish: Finish | None = finish
        self._clock = clock
        self._iterator: Iterator[bytes] | None = None
        self._begun = 0.0

    def __len__(self) -> int:
        return len(self._blocks)

    def __iter__(self) -> Iterator[bytes]:
        self._begun = self._clock()
        iterator = self._iterator = iter(self._blocks)
        return iterator

    def close(self) -> None:
        finish, self._finish = self._finish, None
        if finish is None:
            return
        blocks, iterator = self._blocks, self._iterator
        if iterator is None:
            finish(0, False, 0.0, None)
            return
        # An iterator that was asked beyond its last block forgets the list; until then it tells the next index.
        state: tuple[Any, ...] = iterator.__reduce__()  # type: ignore[assignment]  # typeshed's is object's
        if len(state) == 2:
            sent = len(blocks[0]) if len(blocks) == 1 else sum(map(len, blocks))
            finish(sent, True, self._begun, None)
        else:
            finish(sum(map(len, blocks[: state[2]])), False, self._begun, None)


class Body:
    """Any other body, counted block by block."""

    __slots__ = ("_body", "_clock", "_ended", "_error", "_finish", "_first", "_iterator", "_sent")

    def __init__(self, body: Iterable[bytes], finish: Finish, clock: Callable[[], float]) -> None:
        self._body = body
        self._finish: Finish | None = finish
        self._clock = clock
        self._iterator: Iterator[bytes] | None = None
        self._sent = 0
        self._first = 0.0
        self._ended = False
        self._error: BaseException | None = None

    def __iter__(self) -> Body:
        return self

    def __next__(self) -> bytes:
        iterator = self._iterator
        try:
            if iterator is None:
                iterator = self._iterator = iter(self._body)
            block = next(iterator)
        except StopIteration:
            self._ended = True
            raise
        except BaseException as error:
            self._error = error
            raise
        if block:
            if not self._sent:
                self._first = self._clock()
            self._sent += len(block)
        return block

    def close(self) -> None:
        finish, self._finish = self._finish, None
        if finish is None:
            return
        error = self._error
        try:
            close(self._body)
        except BaseException as raised:
            error = error or raised
            raise
        finally:
            self._error = None
            finish(self._sent, self._ended, self._first, error)


def hook_file(
    body: Any, finish: Finish, clock: Callable[[], float], fields: Callable[[], list[tuple[str, str]]]
) -> bool:
    """Let the server's own file wrapper log when it is closed; False where it takes no attributes.

    How much of it was sent is the server's secret (``sendfile``): the ``Content-Length`` counts, else the file's size.
    """
    inner = getattr(body, "close", None)
    size = _file_size(body)
    at = clock()
    pending = [finish]

    def closing() -> None:
        if not pending:
            return
        last = pending.pop()
        error: BaseException | None = None
        try:
            if inner is not None:
                inner()
        except BaseException as raised:
            error = raised
            raise
        finally:
            length = get_header(fields(), "content-length") or ""
            last(int(length) if length.isascii() and length.isdigit() else size, True, at, error)

    try:
        body.close = closing
    except AttributeError:
        return False
    return True


def _file_size(body: Any) -> int | None:
    """Bytes from the file's position to its end; None where it is no real file."""
    file: Any = getattr(body, "filelike", None) or getattr(body, "file", None)  # waitress calls it `file`
    try:
        return max(0, os.fstat(file.fileno()).st_size - int(file.tell()))
    except (AttributeError, OSError, ValueError, TypeError):
        return None

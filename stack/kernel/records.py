"""``Record``: :class:`typing.NamedTuple`, made in half the time."""

from __future__ import annotations

from collections import namedtuple
from typing import TYPE_CHECKING, Any

__all__ = ["Record"]

if TYPE_CHECKING:
    from typing import NamedTuple as Record
else:

    class _Maker(type):
        """Makes the named tuple that the body of a class describes.

        ``NamedTuple`` compiles every annotation besides, which nobody reads: 0.9 instead of 0.4 million
        instructions a class. A stack of six layers has two dozen of them: a twentieth of ``import webob``.
        """

        def __new__(cls, name: str, bases: tuple[type, ...], body: dict[str, Any]) -> type:
            if not bases:
                return super().__new__(cls, name, bases, body)
            fields = body.get("__annotations__", {})
            defaults = [body[field] for field in fields if field in body]
            made = namedtuple(name, fields, defaults=defaults, module=body["__module__"])
            for key, value in body.items():
                if key not in fields and key != "__module__":
                    setattr(made, key, value)
            return made

    class Record(metaclass=_Maker):
        """A tuple whose elements have names: write it as a :class:`typing.NamedTuple`."""

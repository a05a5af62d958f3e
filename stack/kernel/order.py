"""What a layer says of its place in the stack; ``lamella check`` compares it with the stack file."""

from __future__ import annotations

from .records import Record

__all__ = ["Inside", "OrderRule", "Outside"]


class Inside(Record):
    """This layer belongs inside *layer*, wherever both are in one stack.

    Written as ``Inside("errors", "L103", "…")`` in the ``order`` of a layer's class.
    """

    #: Short name of the other layer.
    layer: str
    #: Code of the rule, such as ``L103``.
    code: str = ""
    #: One sentence: what goes wrong otherwise.
    why: str = ""


class Outside(Record):
    """This layer belongs outside *layer*, wherever both are in one stack."""

    #: Short name of the other layer.
    layer: str
    #: Code of the rule, such as ``L104``.
    code: str = ""
    #: One sentence: what goes wrong otherwise.
    why: str = ""


OrderRule = Inside | Outside

"""Named tuples that are made faster, and are the same."""

from __future__ import annotations

import pickle
from copy import copy
from typing import NamedTuple

from lamella.stack.kernel.records import Record


class Point(Record):
    """Where."""

    x: int
    y: int = 0
    label: str | None = None

    def __str__(self) -> str:
        return f"{self.x}|{self.y}"

    @property
    def sum(self) -> int:
        """Both."""
        return self.x + self.y


class Named(NamedTuple):
    """Where."""

    x: int
    y: int = 0
    label: str | None = None


def test_it_is_a_named_tuple() -> None:
    """Fields, defaults, methods, comparison and copies are those of ``typing.NamedTuple``."""
    point = Point(1, y=2)
    assert tuple(point) == tuple(Named(1, 2)) == (1, 2, None)
    assert (Point._fields, Point._field_defaults) == (Named._fields, Named._field_defaults)
    assert (point._replace(x=3), point._asdict()) == (Point(3, 2), Named(1, 2)._asdict())
    assert (repr(point), str(point), point.sum) == ("Point(x=1, y=2, label=None)", "1|2", 3)
    assert (Point.__doc__, Point.__module__, Point.__qualname__) == ("Where.", __name__, "Point")
    assert (pickle.loads(pickle.dumps(point)), copy(point)) == (point, point)
    assert not hasattr(point, "__dict__")


def test_it_matches_by_place() -> None:
    """A ``match`` takes it apart."""
    match Point(1, 2):
        case Point(x, y):
            assert (x, y) == (1, 2)

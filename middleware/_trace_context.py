"""W3C Trace Context, level 1: reading and beginning traces. Pure functions."""

from __future__ import annotations

import os
import re
from itertools import repeat
from typing import Final

from lamella.stack.kernel.keys import Trace

from ._identifiers import pooled

__all__ = ["begin_trace", "continue_trace", "parse_tracestate"]

# Section 3.2.2: version-format; a higher version may have more behind the flags, separated by a dash.
_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.S)
# Section 3.3.1.3.1: key; with or without a tenant.
_KEY = re.compile(r"[a-z][a-z0-9_\-*/]{0,255}|[a-z0-9][a-z0-9_\-*/]{0,240}@[a-z][a-z0-9_\-*/]{0,13}")
# Section 3.3.1.3.2: value: printable ASCII without comma and equals sign, no space at its end.
_VALUE = re.compile(r"[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e]")
# Section 3.3.1.1: at most 32 list-members.
_MEMBERS: Final = 32
_NO_TRACE, _NO_SPAN = "0" * 32, "0" * 16


def _traces(count: int) -> list[tuple[Trace, str]]:
    trace_ids = os.urandom(16 * count).hex(" ", 16).split()
    span_ids = os.urandom(8 * count).hex(" ", 8).split()
    if _NO_TRACE in trace_ids or _NO_SPAN in span_ids:  # section 3.2.2.3: all zeros are invalid
        return _traces(count)
    fields = zip(trace_ids, span_ids, repeat(""), repeat(True))
    traces = map(tuple.__new__, repeat(Trace), fields)  # as Trace._make does it, in a third of the time
    headers = [f"00-{trace_id}-{span_id}-01" for trace_id, span_id in zip(trace_ids, span_ids, strict=True)]
    return list(zip(traces, headers, strict=True))


#: Returns a new trace and its header; recording is for others to decide, so it is marked as sampled.
begin_trace: Final = pooled(_traces)


def continue_trace(traceparent: str) -> Trace | None:
    """Return this request's place in the caller's trace, with a new span; None where the header is invalid."""
    match = _TRACEPARENT.fullmatch(traceparent)
    if match is None:
        return None
    version, trace_id, parent_id, flags, more = match.groups()
    # Version ff is invalid; version 00 ends with its flags.
    if version == "ff" or (version == "00" and more is not None):
        return None
    if trace_id == _NO_TRACE or parent_id == _NO_SPAN:
        return None
    # Level 1 knows the flag "sampled" only; the others are to be set to zero.
    return Trace(trace_id, begin_trace()[0].span_id, parent_id, bool(int(flags, 16) & 1))


def parse_tracestate(tracestate: str) -> str | None:
    """Return the list as it is to be handed on; None where it is empty or invalid and must be dropped."""
    if len(tracestate) > _MEMBERS * 600:
        return None
    members = [member.strip(" \t") for member in tracestate.split(",")]
    members = [member for member in members if member]  # empty members are allowed, and dropped
    keys = set()
    for member in members:
        key, equals, value = member.partition("=")
        if not equals or _KEY.fullmatch(key) is None or _VALUE.fullmatch(value) is None or key in keys:
            return None
        keys.add(key)
    return ",".join(members) if 0 < len(members) <= _MEMBERS else None

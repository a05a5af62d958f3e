"""The conformance suite: middlewares broken on purpose, each caught by exactly its rule."""

from __future__ import annotations

import contextvars
import io
import itertools
import json
import sys
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import pytest

from lamella.middleware.request_id import RequestIdMiddleware
from lamella.stack.testing import Probe, assert_conforms, call, conformance, environ
from lamella.stack.testing.conformance import RULES

Layer = Callable[[Any, Any], Any]


class Body:
    """A right body around another: what a mutant changes, it overrides."""

    def __init__(self, body: Any) -> None:
        self.body = body
        self.blocks: Any = None
        self.closed = False

    def __iter__(self) -> Body:
        self.blocks = iter(self.body)
        return self

    def __next__(self) -> bytes:
        block: bytes = next(self.blocks)
        return block

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            if hasattr(self.body, "close"):
                self.body.close()


def is_file(body: Any) -> bool:
    """Whether the body is the server's file wrapper."""
    return type(body).__name__ == "_File"


MUTANTS: dict[str, Callable[[Any], Layer]] = {}


def breaks(code: str) -> Callable[[Callable[[Any], Layer]], Callable[[Any], Layer]]:
    """Register a middleware that breaks one rule."""

    def register(mutant: Callable[[Any], Layer]) -> Callable[[Any], Layer]:
        MUTANTS[code if code not in MUTANTS else f"{code}, again"] = mutant
        return mutant

    return register


def on_environ(code: str, change: Callable[[dict[str, Any]], Any]) -> None:
    """A mutant that changes the environ."""

    @breaks(code)
    def mutant(app: Any) -> Layer:
        def layer(environ: Any, start_response: Any) -> Any:
            return app(change(environ) or environ, start_response)

        return layer


def on_start(code: str, start: Callable[..., Any]) -> None:
    """A mutant that changes the start: gets the outer ``start_response`` and what the app passed."""

    @breaks(code)
    def mutant(app: Any) -> Layer:
        def layer(environ: Any, start_response: Any) -> Any:
            return app(environ, lambda *arguments: start(environ, start_response, *arguments))

        return layer


def on_body(code: str, wrap: Callable[[Any], Any]) -> None:
    """A mutant that wraps the body."""

    @breaks(code)
    def mutant(app: Any) -> Layer:
        def layer(environ: Any, start_response: Any) -> Any:
            body = app(environ, start_response)
            return body if is_file(body) else wrap(body)

        return layer


# --- A


class Environ(dict[str, Any]):
    """Not a builtin dict."""


def spoils(key: str, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda environ: environ.update({key: value})


def eats_forms(environ: dict[str, Any]) -> None:
    if "urlencoded" in environ.get("CONTENT_TYPE", ""):
        environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))


def eats_other_methods(environ: dict[str, Any]) -> None:
    if environ["REQUEST_METHOD"] == "PATCH":
        environ["wsgi.input"].read(1)


def knows_methods(environ: dict[str, Any]) -> None:
    if environ["REQUEST_METHOD"] not in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"):
        environ["REQUEST_METHOD"] = "GET"


def reads_everything(environ: dict[str, Any]) -> None:
    environ["wsgi.input"] = io.BytesIO(environ["wsgi.input"].read())


def forgets_the_mount(environ: dict[str, Any]) -> Any:
    return {**environ, "SCRIPT_NAME": ""}


def leaks(environ: dict[str, Any]) -> None:
    if environ.get("SCRIPT_NAME") == "/mounted" and environ.get("PATH_INFO"):
        environ["SCRIPT_NAME"] += environ["PATH_INFO"]
        environ["PATH_INFO"] = ""


on_environ("A1", Environ)
on_environ("A2", spoils("lamella_user", b"nobody"))
on_environ("A2", spoils("X", "\u20ac"))
on_environ("A3", eats_forms)
on_environ("A4", eats_other_methods)
on_environ("A4", knows_methods)
on_environ("A5", lambda environ: environ["SCRIPT_NAME"] and None)
on_environ("A5", lambda environ: environ["QUERY_STRING"] and None)
on_environ("A5", lambda environ: environ["REMOTE_ADDR"] and None)
on_environ("A6", lambda environ: environ.get("PATH_INFO", "").encode("latin-1").decode() and None)
on_environ("A8", leaks)
on_environ("A9", forgets_the_mount)
on_environ("A10", reads_everything)


@breaks("A1")
def names_its_arguments(app: Any) -> Layer:
    def layer(environ: Any, start_response: Any) -> Any:
        code = getattr(getattr(app, "__code__", None), "co_varnames", ())
        if code[:1] == ("arguments",):
            return app(environ=environ, start_response=start_response)
        return app(environ, start_response)

    return layer


@breaks("A7")
def needs_the_environ_after(app: Any) -> Layer:
    def layer(environ: Any, start_response: Any) -> Any:
        body = app(environ, start_response)
        environ["REQUEST_METHOD"].upper()
        return body

    return layer


# --- B


def two_arguments(environ: Any, start_response: Any, *arguments: Any) -> Any:
    if len(arguments) == 3 and arguments[2] is None:
        raise TypeError("start() takes 2 positional arguments but 3 were given")
    return start_response(*arguments)


def no_write(environ: Any, start_response: Any, *arguments: Any) -> Any:
    start_response(*arguments)


def drops_write(environ: Any, start_response: Any, *arguments: Any) -> Any:
    start_response(*arguments)
    return lambda data: None


def one_of_each(environ: Any, start_response: Any, status: Any, headers: Any, *rest: Any) -> Any:
    return start_response(status, list({name.lower(): (name, value) for name, value in headers}.values()), *rest)


def knows_reasons(environ: Any, start_response: Any, status: str, *rest: Any) -> Any:
    return start_response(status if status[:3] != "299" else "299 OK", *rest)


def closes_connections(environ: Any, start_response: Any, status: Any, headers: Any, *rest: Any) -> Any:
    return start_response(status, [*headers, ("Connection", "close")], *rest)


def keeps_alive(environ: Any, start_response: Any, status: Any, headers: Any, *rest: Any) -> Any:
    more = [("Keep-Alive", "timeout=5")] if environ.get("SERVER_PROTOCOL") == "HTTP/1.0" else []
    return start_response(status, [*headers, *more], *rest)


def shares_the_list(environ: Any, start_response: Any, status: Any, headers: Any, *rest: Any) -> Any:
    headers.append(("X-Frame-Options", "DENY"))
    return start_response(status, headers, *rest)


on_start("B1", two_arguments)
on_start("B2", no_write)
on_start("B2", drops_write)
on_start("B3", one_of_each)
on_start("B4", knows_reasons)
on_start("B5", closes_connections)
on_start("B5", keeps_alive)
on_start("B10", shares_the_list)


@breaks("B6")
def keeps_its_first_mind(app: Any) -> Layer:
    """Ignores an error page where nothing was sent yet."""

    def layer(environ: Any, start_response: Any) -> Any:
        started: list[Any] = []

        def start(status: Any, headers: Any, exc_info: Any = None) -> Any:
            if exc_info and started and not started[0].sent:
                return started[0]
            started.append(_Write(start_response(status, headers, exc_info)))
            return started[0]

        body = app(environ, start)
        return body if is_file(body) else _Noting(body, started)

    return layer


class _Write:
    """A ``write()`` that knows whether something was sent."""

    def __init__(self, write: Any) -> None:
        self.write = write
        self.sent = False

    def __call__(self, data: bytes) -> None:
        self.sent = True
        self.write(data)


class _Noting(Body):
    def __init__(self, body: Any, started: list[Any]) -> None:
        super().__init__(body)
        self.started = started

    def __next__(self) -> bytes:
        block = super().__next__()
        self.started[0].sent = True
        return block


@breaks("B7")
def traps_what_comes_late(app: Any) -> Layer:
    def layer(environ: Any, start_response: Any) -> Any:
        late: list[Any] = []

        def start(status: Any, headers: Any, exc_info: Any = None) -> Any:
            try:
                return start_response(status, headers, exc_info)
            except KeyError:
                late.append(True)
                raise

        class Traps(Body):
            def __next__(self) -> bytes:
                try:
                    return super().__next__()
                except KeyError:
                    if late:
                        raise StopIteration from None
                    raise

        body = app(environ, start)
        return body if is_file(body) else Traps(body)

    return layer


@breaks("B8")
def accepts_a_second_start(app: Any) -> Layer:
    def layer(environ: Any, start_response: Any) -> Any:
        started: list[Any] = []

        def start(status: Any, headers: Any, exc_info: Any = None) -> Any:
            if started and exc_info is None:
                return started[0]
            started.append(start_response(status, headers, exc_info))
            return started[0]

        return app(environ, start)

    return layer


@breaks("B9")
def remembers_errors(app: Any) -> Layer:
    kept: list[Any] = []

    def layer(environ: Any, start_response: Any) -> Any:
        def start(*arguments: Any) -> Any:
            kept.append(arguments[2:])
            return start_response(*arguments)

        return app(environ, start)

    return layer


# --- C


@breaks("C1")
def wants_an_early_start(app: Any) -> Layer:
    """Reads what the app started with as soon as it returns; only generators are late."""

    def layer(environ: Any, start_response: Any) -> Any:
        started: list[Any] = []

        def start(*arguments: Any) -> Any:
            started.append(arguments)
            return start_response(*arguments)

        body = app(environ, start)
        if (
            not started
            and getattr(getattr(body, "gi_code", None), "co_name", "") == "late"
            and "c1" in body.__qualname__
        ):
            started[0]  # an IndexError, where nobody has started
        return body

    return layer


@breaks("C2")
def starts_with_the_first_block(app: Any) -> Layer:
    """Holds the headers of a late app back until there is a block."""

    def layer(environ: Any, start_response: Any) -> Any:
        held: list[Any] = []
        state = {"returned": False}

        def start(*arguments: Any) -> Any:
            if state["returned"] and not held and len(arguments) == 2:
                held.append(arguments)
                return lambda data: None
            return start_response(*arguments)

        class Holds(Body):
            def __next__(self) -> bytes:
                block = super().__next__()
                if held and held[0]:
                    start_response(*held[0])
                    held[0] = ()
                return block

        body = app(environ, start)
        state["returned"] = True
        return body if is_file(body) else Holds(body)

    return layer


def closing(when: str) -> Callable[[Any], Any]:
    """A body that forgets ``close()`` in one case only."""

    class Forgets(Body):
        asked = ended = failed = refused = False

        def __next__(self) -> bytes:
            self.asked = True
            try:
                return super().__next__()
            except StopIteration:
                self.ended = True
                raise
            except BaseException as error:
                self.failed = True
                self.refused = type(error).__name__ == "RefusedError"
                raise

        def close(self) -> None:
            case = "end" if self.ended else "error" if self.failed else "left" if self.asked else "never"
            if self.refused or case != when or type(self.body).__name__ == "generator":
                super().close()

    return Forgets


class LeavesGenerators(Body):
    """Closes the iterator of a class only."""

    def close(self) -> None:
        if type(self.body).__name__ != "generator":
            super().close()


class Joins(Body):
    """Collects what a class of ``Steps`` gives, as a templating filter would."""

    def __iter__(self) -> Any:
        if type(self.body).__name__ == "Steps":
            return iter([b"".join(self.body)])
        return super().__iter__()


class JoinsGenerators(Body):
    """Collects generators only."""

    def __iter__(self) -> Any:
        if type(self.body).__name__ == "generator" and self.body.__qualname__.startswith("c8b"):
            return iter([b"".join(self.body)])
        return super().__iter__()


class ReadsAhead(Body):
    """Has always the next block in hand, to know which is the last."""

    def __iter__(self) -> Any:
        if type(self.body).__name__ != "Steps":
            return super().__iter__()
        return self._ahead()

    def _ahead(self) -> Iterator[bytes]:
        blocks = iter(self.body)
        current = next(blocks)
        for following in blocks:
            yield current
            current = following
        yield current


class SkipsEmpty(Body):
    """Leaves empty blocks out."""

    def __next__(self) -> bytes:
        while True:
            block = super().__next__()
            if block:
                return block


@breaks("C10")
def takes_the_first_block(app: Any) -> Layer:
    """Peeks at the first block before it returns."""

    def layer(environ: Any, start_response: Any) -> Any:
        body = app(environ, start_response)
        if type(body).__name__ != "_Body" or body._start is not None or body._app._raises_after:
            return body
        return Peeked(body)

    return layer


class Peeked(Body):
    def __init__(self, body: Any) -> None:
        super().__init__(body)
        self.blocks = iter(body)
        self.first = list(itertools.islice(self.blocks, 1))

    def __iter__(self) -> Body:
        return self

    def __next__(self) -> bytes:
        return self.first.pop() if self.first else super().__next__()


class NeedsABlock(Body):
    """Takes the first block without a thought that there may be none; late apps are left alone."""

    def __iter__(self) -> Any:
        if isinstance(self.body, (list, tuple)) or type(self.body).__name__ == "tuple_iterator":
            blocks = iter(self.body)
            return iter([next(blocks), *blocks])
        return super().__iter__()


class NeedsAnIterator(Body):
    """Takes for granted that a body has ``__iter__``."""

    def __iter__(self) -> Body:
        self.blocks = self.body.__iter__()
        return self


class LiesAboutLen(Body):
    """Claims to be one block, as a list would."""

    def __len__(self) -> int:
        return 1


on_body("C3", closing("end"))
on_body("C4", closing("left"))
on_body("C5", closing("never"))
on_body("C6", closing("error"))
on_body("C7", LeavesGenerators)
on_body("C8", Joins)
on_body("C8", ReadsAhead)
on_body("C8b", JoinsGenerators)
on_body("C9", SkipsEmpty)
on_body("C11", NeedsABlock)
on_body("C12", NeedsAnIterator)
on_body("C13", LiesAboutLen)


@breaks("C14")
def wraps_files(app: Any) -> Layer:
    def layer(environ: Any, start_response: Any) -> Any:
        return Body(app(environ, start_response))

    return layer


# --- D


@breaks("D1")
def adds_a_footer(app: Any) -> Layer:
    """Adds to the body and leaves Content-Length as it is."""

    def layer(environ: Any, start_response: Any) -> Any:
        counted: list[str] = []

        def start(status: Any, headers: Any, *rest: Any) -> Any:
            counted.extend(value for name, value in headers if name == "Content-Length")
            return start_response(status, headers, *rest)

        class Footer(Body):
            done = False

            def __next__(self) -> bytes:
                try:
                    return super().__next__()
                except StopIteration:
                    if self.done or not counted or environ.get("REQUEST_METHOD") != "GET":
                        raise
                    self.done = True
                    return b"<!-- footer -->"

        body = app(environ, start)
        return body if is_file(body) else Footer(body)

    return layer


def counts_head(environ: Any, start_response: Any, status: Any, headers: Any, *rest: Any) -> Any:
    if environ.get("REQUEST_METHOD") == "HEAD":
        headers = [(name, "0" if name == "Content-Length" else value) for name, value in headers]
    return start_response(status, headers, *rest)


def types_everything(environ: Any, start_response: Any, status: Any, headers: Any, *rest: Any) -> Any:
    if not any(name.lower() == "content-type" for name, _ in headers):
        headers = [*headers, ("Content-Type", "text/html")]
    return start_response(status, headers, *rest)


def counts_nothing(environ: Any, start_response: Any, status: Any, headers: Any, *rest: Any) -> Any:
    more = [("Content-Length", "0")] if status.startswith("204") else []
    return start_response(status, [*headers, *more], *rest)


on_start("D2", counts_head)
on_start("D3", types_everything)
on_start("D3", counts_nothing)


# --- E


@breaks("E1")
def hides_errors(app: Any) -> Layer:
    def layer(environ: Any, start_response: Any) -> Any:
        try:
            return app(environ, start_response)
        except ValueError as error:
            if "refuses" in str(error):
                raise
            start_response("200 OK", [("Content-Type", "text/plain")])
            return []

    return layer


@breaks("E1")
def ends_quietly(app: Any) -> Layer:
    class Quiet(Body):
        def __next__(self) -> bytes:
            try:
                return super().__next__()
            except ValueError as error:
                if "refuses" in str(error):
                    raise
                raise StopIteration from None

    def layer(environ: Any, start_response: Any) -> Any:
        body = app(environ, start_response)
        return body if is_file(body) else Quiet(body)

    return layer


@breaks("E2")
def catches_everything(app: Any) -> Layer:
    def layer(environ: Any, start_response: Any) -> Any:
        try:
            return app(environ, start_response)
        except Exception:
            raise
        except BaseException:
            start_response("500 Internal Server Error", [("Content-Type", "text/plain")], sys.exc_info())
            return [b"error"]

    return layer


@breaks("E3")
def forgives_the_server(app: Any) -> Layer:
    def layer(environ: Any, start_response: Any) -> Any:
        def start(*arguments: Any) -> Any:
            try:
                return start_response(*arguments)
            except ValueError:
                return lambda data: None

        return app(environ, start)

    return layer


# --- F


@breaks("F1")
class KeepsTheRequestOnSelf:
    def __init__(self, app: Any) -> None:
        self.app = app

    def __call__(self, environ: Any, start_response: Any) -> Any:
        self.start_response = start_response
        return self.app(environ, lambda *arguments: self.start_response(*arguments))


@breaks("F2")
def runs_elsewhere(app: Any) -> Layer:
    def layer(environ: Any, start_response: Any) -> Any:
        return contextvars.copy_context().run(app, environ, start_response)

    return layer


@breaks("F2")
def runs_nowhere(app: Any) -> Layer:
    def layer(environ: Any, start_response: Any) -> Any:
        return contextvars.Context().run(app, environ, start_response)

    return layer


# --- G


def shouts(environ: Any, start_response: Any, status: Any, headers: Any, *rest: Any) -> Any:
    return start_response(status, [*headers, ("X-Shout", "loud ")], *rest)


on_start("G1", shouts)


@breaks("G2")
def once_only(app: Any) -> Layer:
    def layer(environ: Any, start_response: Any) -> Any:
        if "once_only" in environ:
            raise RuntimeError("already wrapped")
        environ["once_only"] = ""
        return app({**environ}, start_response)

    return layer


@pytest.mark.parametrize("name", sorted(MUTANTS))
def test_catches_each_fault_by_its_rule(name: str) -> None:
    """A middleware that breaks one rule fails that rule and no other."""
    report = conformance(MUTANTS[name])

    assert [result.code for result in report.failures] == [name.partition(",")[0]], report.explain()


def test_every_rule_has_its_mutant() -> None:
    """No rule is without a middleware that breaks it."""
    assert {name.partition(",")[0] for name in MUTANTS} == set(RULES)


def right_ones() -> dict[str, Any]:
    """Middlewares that do everything right, in all the usual shapes."""

    def identity(app: Any) -> Any:
        return app

    def wraps(app: Any) -> Layer:
        def layer(environ: Any, start_response: Any) -> Any:
            body = app(environ, start_response)
            return body if is_file(body) else Body(body)

        return layer

    class Adds:
        def __init__(self, app: Any, *, header: str = "X-A") -> None:
            self.app = app
            self.header = header

        def __call__(self, environ: Any, start_response: Any) -> Any:
            def start(status: str, headers: Any, exc_info: Any = None) -> Any:
                return start_response(status, [*headers, (self.header, "1")], exc_info)

            return self.app(environ, start)

    return {"identity": identity, "wraps": wraps, "Adds": Adds, "request_id": RequestIdMiddleware}


@pytest.mark.parametrize("name", sorted(right_ones()))
def test_finds_nothing_where_nothing_is_wrong(name: str) -> None:
    """A right middleware keeps every rule."""
    report = conformance(right_ones()[name])

    assert report.failures == []
    assert report.passed == len(RULES) >= 40


def test_passes_options_to_the_factory() -> None:
    """Options reach the factory; what it refuses is raised, not reported."""
    assert conformance(right_ones()["Adds"], header="X-B").failures == []
    assert [result.code for result in conformance(right_ones()["Adds"], header="Connection").failures] == ["B5"]
    with pytest.raises(TypeError):
        conformance(right_ones()["Adds"], haeder="X-B")


def guarded(app: Any) -> Layer:
    """Lets only who knows the word pass."""

    def layer(environ: Any, start_response: Any) -> Any:
        if environ.get("HTTP_X_WORD") != "please":
            start_response("403 Forbidden", [("Content-Type", "text/plain"), ("Content-Length", "2")])
            return [b"no"]
        return app(environ, start_response)

    return layer


def test_says_where_the_app_was_not_reached() -> None:
    """A middleware that answers itself is not called conforming; a probe gets through."""
    blind = conformance(guarded)

    assert not blind.reached
    assert "never reached" in str(blind)
    with pytest.raises(AssertionError, match="never reached"):
        assert_conforms(guarded)
    assert_conforms(guarded, probe=Probe(headers={"x_word": "please"}))


def test_exemptions_are_shown_with_their_reason() -> None:
    """What does not hold by design is neither hidden nor a failure."""

    class Answers(KeepsTheRequestOnSelf):
        exempt: ClassVar = {"F1": "one request at a time"}

    report = conformance(Answers)

    assert report.failures == []
    assert [(result.code, result.seen) for result in report.results if result.outcome == "exempt"] == [
        ("F1", "one request at a time")
    ]


def test_tries_chosen_rules_only() -> None:
    """``rules`` limits the run; an unknown code is an error."""
    assert [result.code for result in conformance(MUTANTS["C4"], rules=["C3", "C4"]).results] == ["C3", "C4"]
    with pytest.raises(KeyError):
        conformance(MUTANTS["C4"], rules=["Z9"])


def test_the_report_says_what_where_and_how() -> None:
    """Each failure has the sentence it breaks and a script; as text, table and JSON."""
    from rich.console import Console

    report = conformance(MUTANTS["C4"])
    text = io.StringIO()
    Console(file=text, width=160).print(report.table())

    data = json.loads(report.to_json())
    (failure,) = [result for result in data["results"] if result["outcome"] == "failed"]
    assert failure["code"] == "C4"
    assert "must call that method" in failure["sentence"]
    assert "blocks=1" in failure["reproduction"]
    assert "C4" in text.getvalue()
    assert "close() of the app's body came 0 times" in report.explain()


def test_is_what_a_test_calls() -> None:
    """``assert_conforms`` fails with the whole story."""
    with pytest.raises(AssertionError, match="B4"):
        assert_conforms(MUTANTS["B4"])
    assert call(RequestIdMiddleware(MUTANTS["B4"](_hello)), environ("GET", "/")).body == b"hello"


def _hello(environ: Any, start_response: Any) -> list[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"hello"]

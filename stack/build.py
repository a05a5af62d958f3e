"""``Stack``: layers around an application, as data and as a WSGI application.

A stack is built when it is made, from the inside out: every layer's constructor has run
before the first request. Nothing changes afterwards; ``without``, ``replace``, ``only`` and
``insert`` return new stacks.

.. code-block:: python

    from lamella.stack import Layer, Stack

    stack = Stack([Layer("request_id"), Layer("access_log", format="json")], app=application)
    quiet = stack.without("access_log")
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from lamella.stack.kernel.environ import direct
from lamella.stack.kernel.errors import ConfigError
from lamella.stack.kernel.faults import note_app
from lamella.stack.layer import ID, Application, Frozen, Layer, as_scope, make_application
from lamella.stack.problems import did_you_mean
from lamella.stack.settings import Origin, Setting

if TYPE_CHECKING:
    import os
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from lamella.stack.problems import Problem
    from lamella.stack.scope import When
    from lamella.stack.statements import Description, Expectation, Silence
    from lamella.stack.trace import Trace

__all__ = ["Application", "Around", "Layer", "Origin", "Setting", "Stack", "load", "stacks_in"]


def load(path: str | os.PathLike[str], profile: str | None = None) -> Stack:
    """Read a stack file, check it, and build its stack.

    Args:
        path: The file. Paths inside it are relative to it.
        profile: Name of one of its profiles.

    Raises:
        StackFileError: Something is wrong; ``problems`` has every mistake with its place.
    """
    from lamella.stack.loader import load_stack

    return load_stack(path, profile)


#: Called with each built layer, and with the innermost application, when a stack is built with
#: probes; returns what takes its place.
Around = Callable[["Layer | Application", "WSGIApplication"], "WSGIApplication"]
Failed = Callable[["Layer | Application", BaseException], None]


class Stack(Frozen):
    """Layers around an application; itself a WSGI application.

    Args:
        layers: From the outermost to the innermost: :class:`Layer` objects, or what makes one
            without options (a name, a class).
        app: The application inside: an object, ``"module:attribute"``, ``"egg:Dist#name"`` or another stack.
        name: Of a sub-stack; its layers are addressed as ``name/id``.

    Raises:
        ConfigError: Two layers have one id, the app cannot be found, or a layer refuses an option.
    """

    __slots__ = (
        "_built", "application", "budget", "describe", "expects", "file", "files", "layers", "name", "profile",
        "silences", "single_process", "warnings",
    )  # fmt: skip

    #: From the outermost to the innermost.
    layers: tuple[Layer, ...]
    application: Application
    #: Name of a sub-stack; empty for the main one.
    name: str
    #: The stack file; empty for a stack made in Python.
    file: str
    #: Every file that was read to make it: the stack file, its parents.
    files: tuple[str, ...]
    profile: str | None
    #: What may be wrong, without keeping the stack from running.
    warnings: tuple[Problem, ...]
    expects: tuple[Expectation, ...]
    silences: tuple[Silence, ...]
    #: By the text of ``use``: what a third-party layer provides, requires and where it belongs.
    describe: Mapping[str, Description]
    #: By the id of the layer: seconds that it may take.
    budget: Mapping[str, float]
    #: By the id of the layer: why it, as it was built, works in one process only.
    single_process: Mapping[str, str]
    _built: WSGIApplication | None

    def __init__(self, layers: Iterable[Layer | str | Callable[..., Any]], app: Any = None, *, name: str = "") -> None:
        made = [one if isinstance(one, Layer) else Layer(one) for one in layers]
        if app is None:
            raise ConfigError("app", app, "an application inside the layers")
        if name and ID.fullmatch(name) is None:
            raise ConfigError("name", name, "letters, digits, _ and -, beginning with a letter or _")
        seen: set[str] = set()
        for layer in made:
            if layer.id in seen:
                raise ConfigError("id", layer.id, "an id of its own for each layer")
            seen.add(layer.id)
        self._fill([layer._changed(stack=name) for layer in made], make_application(app, name), name=name)
        self._build()

    @classmethod
    def _make(cls, layers: Iterable[Layer], application: Application, **more: Any) -> Stack:
        """Make a stack that is not built yet out of parts that have been checked."""
        made = cls.__new__(cls)
        made._fill(layers, application, **more)
        return made

    def _fill(
        self,
        layers: Iterable[Layer],
        application: Application,
        *,
        name: str = "",
        file: str = "",
        files: Iterable[str] = (),
        profile: str | None = None,
        warnings: Iterable[Problem] = (),
        expects: Iterable[Expectation] = (),
        silences: Iterable[Silence] = (),
        describe: Mapping[str, Description] | None = None,
        budget: Mapping[str, float] | None = None,
    ) -> None:
        self._set(
            layers=tuple(layers), application=application, name=name, file=file, files=tuple(files), profile=profile,
            warnings=tuple(warnings), expects=tuple(expects), silences=tuple(silences),
            describe=MappingProxyType(dict(describe or {})), budget=MappingProxyType(dict(budget or {})), _built=None,
            single_process=MappingProxyType({}),
        )  # fmt: skip

    # -- serving --

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        built = self._built
        return (self.wsgi_closure if built is None else built)(environ, start_response)

    @property
    def wsgi_closure(self) -> WSGIApplication:
        """The outermost layer: calling it saves the call of the stack itself."""
        if self._built is None:
            raise RuntimeError("this stack is described, not built; load() and Stack() build one")
        return self._built

    @property
    def app(self) -> Any:
        """The application inside, as it was given or imported."""
        return self.application.target

    def build(self, around: Around | None = None) -> WSGIApplication:
        """Build the pipeline once more, and return its outermost application.

        Args:
            around: Called with each :class:`Layer`, and with the :class:`Application`, and what
                was built for it; what it returns is what the layer outside calls. Sub-stacks
                are built the same way.
        """
        return self._assemble(around, None)

    def _build(self, failed: Failed | None = None) -> None:
        """Build this stack and its sub-stacks, once."""
        for sub_stack in self._direct_stacks():
            if sub_stack._built is None:
                sub_stack._build(failed)
        alone: dict[str, str] = {}
        self._set(_built=direct(self._assemble(None, failed, alone)), single_process=MappingProxyType(alone))

    def _assemble(
        self, around: Around | None, failed: Failed | None, alone: dict[str, str] | None = None
    ) -> WSGIApplication:
        """Wrap the app in each layer; one that fails is reported and left out.

        Args:
            around: As in :meth:`build`.
            failed: Called where a constructor raised; without it that is raised.
            alone: Gets what the layers say of several processes, in their attribute ``single_process``.
        """
        app: WSGIApplication = _built_value(self.application.target, around)
        innermost = self.application
        while isinstance(innermost.target, Stack):
            innermost = innermost.target.application
        name = innermost.use
        if around is not None:
            app = around(self.application, app)
        for layer in reversed(self.layers):
            try:
                options = {name: _built_value(value, around) for name, value in layer.options.items()}
                made = layer.factory(app, **options)
                if not callable(made):
                    raise ConfigError("use", made, "a layer that returns a WSGI application")
                note_app(made, name)
            except (Exception, SystemExit) as error:
                if failed is None:
                    error.add_note(f"in the layer {layer.full_id!r} of the stack")
                    raise
                failed(layer, error)
                continue
            reason = getattr(made, "single_process", None)
            if alone is not None and isinstance(reason, str) and reason:
                alone[layer.id] = reason
            if layer.when is not None:
                made = layer.when.wrap(made, app)
            app = made if around is None else around(layer, made)
        return app

    def trace(self, request: Any) -> Trace:
        """Send one request through a copy of the stack and record what each layer does to it.

        Args:
            request: An environ, an object with one, or text such as ``"GET /cart"``.
        """
        from lamella.stack.trace import trace

        return trace(self, request)

    # -- looking --

    @property
    def stacks(self) -> Mapping[str, Stack]:
        """The sub-stacks, at any depth, by name."""
        return MappingProxyType({stack.name: stack for stack in self.walk() if stack is not self})

    def walk(self) -> Iterator[Stack]:
        """Yield this stack and its sub-stacks, each once, the outer before the inner."""
        seen: set[int] = set()
        pending: list[Stack] = [self]
        while pending:
            stack = pending.pop(0)
            if id(stack) not in seen:
                seen.add(id(stack))
                yield stack
                pending.extend(stack._direct_stacks())

    def _direct_stacks(self) -> Iterator[Stack]:
        yield from stacks_in(self.application.target)
        for layer in self.layers:
            for value in layer.options.values():
                yield from stacks_in(value)

    def __iter__(self) -> Iterator[Layer]:
        return iter(self.layers)

    def __len__(self) -> int:
        return len(self.layers)

    def __getitem__(self, id: str) -> Layer:
        """Return the layer *id*, or ``sub-stack/id``.

        Raises:
            KeyError: There is none.
        """
        stack, name = self._locate(id)
        return next(layer for layer in stack.layers if layer.id == name)

    def __contains__(self, id: object) -> bool:
        return any(id in (layer.full_id, layer) for stack in self.walk() for layer in stack.layers)

    def __repr__(self) -> str:
        inside = ", ".join([*(layer.id for layer in self.layers), self.application.use])
        return f"<Stack {self.name + ': ' if self.name else ''}{inside}>"

    def _locate(self, id: str) -> tuple[Stack, str]:
        """Return the stack that has the layer, and the layer's id in it."""
        name, slash, last = id.rpartition("/")
        for stack in self.walk():
            if (stack.name == name if slash else stack is self) and any(layer.id == last for layer in stack.layers):
                return stack, last
        hint = did_you_mean(id, (layer.full_id for stack in self.walk() for layer in stack.layers))
        raise KeyError(f"no layer has the id {id!r}{hint}")

    # -- other stacks --

    def without(self, *ids: str) -> Stack:
        """Return the stack without some layers.

        Raises:
            KeyError: One of *ids* is unknown.
        """
        stack = self
        for one in ids:
            stack = stack._with(one, lambda layer: ())
        return stack._ready()

    def replace(self, id: str, /, *, when: When | Mapping[str, Iterable[str]] | None = None, **options: Any) -> Stack:
        """Return the stack in which one layer has other options; those not named stay.

        Raises:
            KeyError: *id* is unknown.
            ConfigError: The layer has no such option.
        """
        scope = as_scope(when)

        def changed(layer: Layer) -> tuple[Layer, ...]:
            origins = {**layer.origins, **dict.fromkeys(options, Origin("python"))}
            new = layer._changed(options={**layer.options, **options}, origins=origins, when=scope or layer.when)
            new._check_names()
            return (new,)

        return self._with(id, changed)._ready()

    def only(self, *ids: str) -> Stack:
        """Return a stack of some layers alone, around the app; their order stays.

        Raises:
            KeyError: One of *ids* is unknown.
        """
        for one in ids:
            if not any(layer.id == one for layer in self.layers):
                raise KeyError(f"no layer has the id {one!r}{did_you_mean(one, (x.id for x in self.layers))}")
        return self._copy([layer for layer in self.layers if layer.id in ids])._ready()

    def insert(self, layer: Layer, *, before: str | None = None, after: str | None = None) -> Stack:
        """Return the stack with one layer more.

        Args:
            layer: The new one.
            before: Id of the layer that it is to be right outside of.
            after: Id of the layer that it is to be right inside of.

        Raises:
            KeyError: The neighbour is unknown.
            ConfigError: Its id is taken.
        """
        if (before is None) == (after is None):
            raise TypeError("insert() takes one of before and after")
        neighbour = before if before is not None else str(after)
        stack, _ = self._locate(neighbour)
        if any(other.id == layer.id for other in stack.layers):
            raise ConfigError("id", layer.id, "an id that no layer has yet")
        new = layer._changed(stack=stack.name)
        return self._with(neighbour, lambda one: (new, one) if before is not None else (one, new))._ready()

    def with_app(self, app: Any) -> Stack:
        """Return the same layers around another application."""
        return self._copy(self.layers, application=make_application(app, self.name))._ready()

    def _with(self, id: str, change: Callable[[Layer], tuple[Layer, ...]]) -> Stack:
        """Return a stack, not built yet, in which *change* has replaced one layer."""
        stack, last = self._locate(id)
        layers = [new for layer in stack.layers for new in (change(layer) if layer.id == last else (layer,))]
        return self._swapped({stack: stack._copy(layers)})

    def _swapped(self, new: dict[Stack, Stack]) -> Stack:
        """Return this stack with other sub-stacks in it, at any depth."""
        if self in new:
            return new[self]
        layers = []
        for layer in self.layers:
            options = {name: _swapped_value(value, new) for name, value in layer.options.items()}
            same = all(options[name] is value for name, value in layer.options.items())
            layers.append(layer if same else layer._changed(options=options))
        target = _swapped_value(self.application.target, new)
        changed = target is not self.application.target or any(
            a is not b for a, b in zip(layers, self.layers, strict=True)
        )
        if not changed:
            return self
        new[self] = made = self._copy(layers, application=self.application._changed(target=target))
        return made

    def _copy(self, layers: Iterable[Layer], application: Application | None = None) -> Stack:
        made_anew = ("_built", "layers", "application", "single_process")
        kept = {name: getattr(self, name) for name in self.__slots__ if name not in made_anew}
        return Stack._make(layers, application or self.application, **kept)

    def _ready(self) -> Stack:
        if self._built is None:
            self._build()
        return self


def stacks_in(value: Any) -> Iterator[Stack]:
    """Find the stacks in an option: themselves, in lists, in tables."""
    if isinstance(value, Stack):
        yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from stacks_in(inner)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from stacks_in(inner)


def _built_value(value: Any, around: Around | None) -> Any:
    """Copy the containers of an option; with probes, build the stacks in it anew."""
    if isinstance(value, Stack):
        return value if around is None else value.build(around)
    if type(value) is dict:
        return {key: _built_value(inner, around) for key, inner in value.items()}
    if type(value) is list:
        return [_built_value(inner, around) for inner in value]
    if type(value) is tuple and around is not None:
        return tuple(_built_value(inner, around) for inner in value)
    return value


def _swapped_value(value: Any, new: dict[Stack, Stack]) -> Any:
    if isinstance(value, Stack):
        return value._swapped(new)
    if type(value) is dict:
        changed: Any = {key: _swapped_value(inner, new) for key, inner in value.items()}
        return changed if any(changed[key] is not inner for key, inner in value.items()) else value
    if type(value) in (list, tuple):
        changed = [_swapped_value(inner, new) for inner in value]
        same = all(a is b for a, b in zip(changed, value, strict=True))
        return value if same else type(value)(changed)
    return value

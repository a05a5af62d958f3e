"""From a plan to a stack: references found, options converted, layers built, every mistake located."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from lamella.stack.build import Application, Layer, Origin, Stack
from lamella.stack.convert import BAD, Converter
from lamella.stack.document import Raw, shown
from lamella.stack.kernel.asgi import as_wsgi
from lamella.stack.kernel.errors import ConfigError, LamellaError
from lamella.stack.kernel.options import Secret
from lamella.stack.plan import Body, Plan, RawLayer, make_plan
from lamella.stack.problems import Problem, StackFileError, UnresolvedError, did_you_mean, sort_problems
from lamella.stack.references import PasteApp, find_app, find_layer, is_reference, one_line
from lamella.stack.signatures import REQUIRED, Parameter, Signature, signature

if TYPE_CHECKING:
    from lamella.stack.scanner import Path
    from lamella.stack.scope import When
    from lamella.stack.statements import Description

__all__ = ["Loader", "load_stack"]


def load_stack(path: str | os.PathLike[str], profile: str | None = None) -> Stack:
    """Read a stack file and build its stack; see :func:`lamella.stack.load`."""
    loader = Loader(os.fspath(path), profile)
    loader.describe()
    loader.build()
    stack = loader.stack
    if loader.errors or stack is None:
        raise StackFileError(loader.errors)
    return stack


class Loader:
    """Makes one stack out of one stack file, in phases; mistakes are collected.

    Args:
        file: Path of the stack file.
        profile: Name of the profile, or None.
        import_apps: False: no app of the user is imported, a stand-in takes its place.
        check_apps: Import also the apps that a layer would import later.

    Raises:
        StackFileError: The file or a parent cannot be read.
    """

    def __init__(
        self, file: str, profile: str | None = None, *, import_apps: bool = True, check_apps: bool = False
    ) -> None:
        self.file = file
        self.profile = profile
        self._import_apps = import_apps
        self._check_apps = check_apps and import_apps
        self.plan: Plan = make_plan(file, profile)
        #: The stack, described and then built.
        self.stack: Stack | None = None
        self._stacks: dict[str, Stack | None] = {}
        self._pending: list[str] = []
        self._used: set[str] = set()
        self._factories: dict[str, Any] = {}
        self._signatures: dict[str, Signature | None] = {}
        self._raws: dict[tuple[str, str], RawLayer] = {}
        self._secrets: set[str] = set()
        self._more: list[Problem] = []

    @property
    def problems(self) -> list[Problem]:
        """Everything found so far, by place."""
        return sort_problems([*(one for document in self.plan.documents for one in document.problems), *self._more])

    @property
    def errors(self) -> list[Problem]:
        """What keeps the stack from running."""
        return [one for one in self.problems if not one.warning]

    @property
    def warnings(self) -> list[Problem]:
        """What does not."""
        return [one for one in self.problems if one.warning]

    # -- describing --

    def describe(self) -> None:
        """Resolve and convert everything; nothing is built yet."""
        self._used = {name[1:] for name in self._named_stacks()}
        more = self._statements()
        self.stack = self._stack("", **more)
        for name, body in self.plan.bodies.items():
            if name and name not in self._used:
                known = [raw.removeprefix("@") for raw in self._named_stacks() if raw[1:] not in self.plan.bodies]
                hint = did_you_mean(name, known)
                message = f'the sub-stack `{name}` is not used; name it somewhere as "@{name}"{hint}'
                body.document.refuse_key(body.path, message, "references")
            if name:
                self._stack(name)
        for layer in self.plan.spare_layers:
            self._layer(layer, resolve=False)
        for layer, option, raw in self.plan.spare_options:
            self._check_spare(layer, option, raw)

    def _named_stacks(self) -> set[str]:
        """Every text of the files that begins with ``@``, where an app may stand."""
        found: set[str] = set()
        bodies = self.plan.bodies.values()
        raws = [body.app for body in bodies if body.app is not None]
        raws += [raw for layer in self.plan.layers() for raw in layer.options.values()]
        for raw in raws:
            _collect(raw.value, found)
        # Other profiles, and what a child replaced, use their sub-stacks too.
        for document in self.plan.documents:
            for name in ("profile", "layer", "insert", "app", "stack"):
                _collect(document.data.get(name), found)
        return found

    def _statements(self) -> dict[str, Any]:
        """Expectations and the like, from all files."""
        documents = self.plan.documents
        names = ("expect", "silence", "describe", "budget")
        if not any(name in document.data for document in documents for name in names):
            return {}
        from lamella.stack import statements

        expects = []
        silences = []
        describe: dict[str, Description] = {}
        budget: dict[str, float] = {}
        known = [*self.plan.ids(), *(layer.full_id for layer in self.plan.spare_layers)]
        known += self.plan.disabled
        uses = {raw.value for layer in (*self.plan.layers(), *self.plan.spare_layers) if (raw := layer.use) is not None}
        for document in documents:
            expects += statements.read_expects(document, document.data.get("expect", []))
            silences += statements.read_silences(document, document.data.get("silence", []))
            found = statements.read_describe(document, document.data.get("describe", {}))
            for use in found.keys() - uses if document is self.plan.main else ():
                document.refuse_key(("describe", use), f"no layer has use = {shown(use)}{did_you_mean(use, uses)}")
            describe.update(found)
            budget.update(statements.read_budget(document, document.data.get("budget", {})))
            statements.check_ids(document, known)
        return {"expects": expects, "silences": silences, "describe": describe, "budget": budget}

    def _stack(self, name: str, **more: Any) -> Stack | None:
        """Return one stack, described; None where something in it is wrong."""
        if name in self._stacks:
            return self._stacks[name]
        self._pending.append(name)
        body = self.plan.bodies[name]
        application = self._application(name, body)
        layers = [made for raw in body.layers if (made := self._layer(raw)) is not None]
        self._pending.pop()
        stack = Stack._make(
            layers,
            application or Application("?", _stand_in("?"), stack=name),
            name=name,
            file=self.file,
            files=[document.file for document in self.plan.documents],
            profile=self.profile,
            **more,
        )
        self._stacks[name] = stack
        return stack

    def _sub_stack(self, name: str) -> Stack | str | None:
        """Return a sub-stack for an option or an app; text where it would contain itself."""
        if name in self._pending:
            circle = " → ".join(f"@{one}" for one in [*self._pending[self._pending.index(name) :], name])
            return f"the sub-stack would contain itself: {circle}"
        return self._stack(name)

    def _names(self) -> list[str]:
        return [name for name in self.plan.bodies if name]

    # -- apps --

    def _application(self, name: str, body: Body) -> Application | None:
        raw = body.app
        if raw is None or raw.value is None:
            return None
        document, path, use = raw.document, raw.path, raw.value
        place = dict(zip(("line", "column"), document.value(path), strict=True))
        target: Any
        if use.startswith("@"):
            target = self._stack_as_app(raw, use[1:])
        elif not self._import_apps and is_reference(use):
            target = _stand_in(use)
        else:
            target = self._find_app(raw)
        if target is None:
            return None
        if isinstance(target, PasteApp) or (body.app_options and not use.startswith("@")):
            target = self._made_app(target, raw, body)
        elif body.app_options:
            for option in body.app_options.values():
                option.document.refuse_key(option.path, "a sub-stack has no options here; they stand at its own layers")
        if target is None:
            return None
        try:
            target = as_wsgi(use, target)
        except ConfigError as error:
            document.refuse(path, f"{use} is not an app: expected {error.expected}", "references")
            return None
        return Application(use, target, stack=name, file=document.file, **place)

    def _stack_as_app(self, raw: Raw, name: str) -> Stack | None:
        if name not in self.plan.bodies or not name:
            hint = did_you_mean(name, self._names())
            raw.document.refuse(raw.path, f"no sub-stack is called `{name}`{hint}", "references")
            return None
        found = self._sub_stack(name)
        if isinstance(found, str):
            raw.document.refuse(raw.path, found, "references")
            return None
        return found

    def _find_app(self, raw: Raw) -> Any:
        try:
            return find_app(raw.value)
        except UnresolvedError as error:
            raw.document.refuse(raw.path, self._hidden(str(error)), "references")
            return None

    def _made_app(self, factory: Any, raw: Raw, body: Body) -> Any:
        """Call a factory of apps with its options."""
        document = raw.document
        if getattr(factory, "is_stand_in", False):
            return factory
        try:
            known = signature(factory, leading=0)
        except ValueError as error:
            document.refuse(raw.path, f"{raw.value} cannot be called with options: {error}", "references")
            return None
        options, _, whole = self._options(raw.value, known, body.app_options, raw, resolve=True)
        if not whole:
            return None
        try:
            made = factory(**options)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - a user's code; reported with its place
            document.refuse(raw.path, f"{raw.value} raised {self._hidden(one_line(error))}", "build")
            return None
        if not callable(made):
            document.refuse(raw.path, f"{raw.value} made an object of type {type(made).__name__}, no app", "build")
            return None
        return made

    # -- layers --

    def _factory(self, raw: Raw) -> Any:
        """Return the factory, None where there is none; each is looked for once."""
        use = raw.value
        if use not in self._factories:
            try:
                self._factories[use] = find_layer(use)
            except UnresolvedError as error:
                self._factories[use] = error
        found = self._factories[use]
        if isinstance(found, UnresolvedError):
            raw.document.refuse(raw.path, str(found), "references")
            return None
        return found

    def _signature(self, raw: Raw, factory: Any) -> Signature | None:
        use = raw.value
        if use not in self._signatures:
            try:
                self._signatures[use] = signature(factory)
            except ValueError as error:
                self._signatures[use] = None
                raw.document.refuse(raw.path, f"{use} is not a layer: {error}", "references")
                return None
        found = self._signatures[use]
        if found is not None and found.takes_any:
            raw.document.refuse_key(
                raw.path, f"options not checked: {use} takes any keyword", "references", warning=True
            )  # fmt: skip
        return found

    def _layer(self, raw: RawLayer, *, resolve: bool = True) -> Layer | None:
        """Return one layer, described; None where something of it is wrong."""
        when, whole = self._when(raw.when)
        if raw.use is None or raw.use.value is None:
            return None
        factory = self._factory(raw.use)
        known = self._signature(raw.use, factory) if factory is not None else None
        if factory is None or known is None:
            return None
        options, origins, fits = self._options(raw.id, known, raw.options, raw.use, resolve=resolve)
        if not (whole and fits):
            return None
        document = raw.document
        line, column = document.key(raw.path)
        self._raws[raw.stack, raw.id] = raw
        return Layer._make(
            raw.use.value, raw.id, factory, when, options, origins,
            signature=known, stack=raw.stack, file=document.file, line=line, column=column,
        )  # fmt: skip

    def _when(self, raw: Raw | None) -> tuple[When | None, bool]:
        if raw is None:
            return None, True
        from lamella.stack.scope import When

        document = raw.document
        before = len(document.problems)
        keys = ("paths", "except", "methods", "hosts")
        table = document.table(raw.path, raw.value)
        document.known_keys(raw.path, table, keys, "`when`")
        if isinstance(raw.value, dict) and not table:
            document.refuse(raw.path, "the scope is empty; name one of " + ", ".join(keys) + ", or leave `when` out")
        made = None
        for key in keys:
            if key in table:
                path = (*raw.path, key)
                try:
                    When(**{key: table[key]})
                except ConfigError as error:
                    at = (*path, table[key].index(error.value)) if _is_in(error.value, table[key]) else path
                    hint = ""
                    if key == "methods" and isinstance(error.value, str) and error.value.upper() != error.value:
                        hint = f' (did you mean "{error.value.upper()}"?)'
                    document.refuse(at, f"expected {error.expected}, not {shown(error.value)}{hint}")
        if len(document.problems) == before:
            made = When(**table)
        return made, made is not None

    def _options(
        self, owner: str, known: Signature, raws: dict[str, Raw], use: Raw, *, resolve: bool
    ) -> tuple[dict[str, Any], dict[str, Origin], bool]:
        """Convert the options of one layer; the last value tells whether all of them are right."""
        options: dict[str, Any] = {}
        origins: dict[str, Origin] = {}
        whole = True
        for name, raw in raws.items():
            if name not in known.parameters and not known.takes_any:
                others = ", ".join(f"`{one}`" for one in known.parameters) or "none"
                hint = did_you_mean(name, known.parameters) or f"; it has {others}"
                raw.document.refuse_key(raw.path, f"{owner} has no option `{name}`{hint}")
                whole = False
                continue
            value, origin = self._option(known.get(name), raw, resolve)
            if value is BAD:
                whole = False
            options[name], origins[name] = value, origin
        missing = [name for name, one in known.parameters.items() if one.default is REQUIRED and name not in raws]
        if missing:
            names = " and ".join(f"`{name}`" for name in missing)
            use.document.refuse_key(use.path, f"{owner} needs the option{'s' if len(missing) > 1 else ''} {names}")
        return options, origins, whole and not missing

    def _option(self, parameter: Parameter, raw: Raw, resolve: bool) -> tuple[Any, Origin]:
        document = raw.document
        sources: list[str] = []

        def report(path: Path, message: str, phase: str, key: bool) -> None:
            refuse = document.refuse_key if key else document.refuse
            refuse((*raw.path, *path), f"{parameter.name}: {self._hidden(message)}", phase)

        converter = Converter(
            report,
            folder=document.folder,
            sub_stack=self._sub_stack,
            names=self._names,
            resolve=resolve,
            check_apps=self._check_apps,
            notice=sources.append,
            keep_secret=self._secrets.add,
        )
        value = converter.option(parameter, raw.value)
        line, column = document.key(raw.path)
        words = {source.partition(" ")[0] for source in sources} or {"file"}
        kind = words.pop() if len(words) == 1 and (not sources or "file" not in words) else "outside"
        detail = ", ".join(dict.fromkeys(sources))
        return value, Origin(kind, detail, profile=raw.profile, file=document.file, line=line, column=column)

    def _check_spare(self, layer: RawLayer, option: str, raw: Raw) -> None:
        """Check what another profile would set; no variable and no file is looked at."""
        if option == "when":
            self._when(raw)
            return
        use = layer.use
        if use is None or isinstance(self._factories.get(use.value), UnresolvedError):
            return
        known = self._signatures.get(use.value)
        if use.value not in self._factories:  # only in a layer that another profile inserts
            factory = self._factory(use)
            known = self._signature(use, factory) if factory is not None else None
        if known is None:
            return
        if option not in known.parameters and not known.takes_any:
            others = ", ".join(f"`{one}`" for one in known.parameters) or "none"
            hint = did_you_mean(option, known.parameters) or f"; it has {others}"
            raw.document.refuse_key(raw.path, f"{layer.id} has no option `{option}`{hint}")
            return
        self._option(known.get(option), raw, resolve=False)

    # -- building --

    def build(self) -> None:
        """Run the constructors, from the inside out; the stack is whole if there are no errors."""
        if self.stack is None:
            return
        self.stack._build(self._failed)
        for stack in self._stacks.values():
            if stack is not None and stack._built is None:
                stack._build(self._failed)
        warnings = self.warnings
        self.stack._set(warnings=tuple(warnings))

    def _failed(self, part: Layer | Application, error: BaseException) -> None:
        """Locate what a constructor raised."""
        raw = self._raws.get((part.stack, part.id))
        if raw is None or raw.use is None:
            self._more.append(Problem(part.file, part.line, part.column, one_line(error), phase="build"))
            return
        if isinstance(error, ConfigError):
            name = error.option.partition(".")[0].partition("[")[0]
            option = raw.options.get(name)
            if option is not None:
                path = (*option.path, *_where(option.value, error.value))
                option.document.refuse(path, self._config_message(raw, part, error), "build")
                return
        document, at = raw.use.document, raw.use.path
        if isinstance(error, LamellaError):
            document.refuse(at, f"{raw.id}: {self._hidden(str(error))}", "build")
        else:
            document.refuse(at, f"{raw.id} raised {self._hidden(one_line(error))}", "build")

    def _config_message(self, raw: RawLayer, part: Layer | Application, error: ConfigError) -> str:
        """The text of a refused option, without a secret."""
        known = part.signature if isinstance(part, Layer) else None
        name = error.option.partition(".")[0].partition("[")[0]
        is_secret = known is not None and known.get(name).is_secret
        if is_secret or isinstance(error.value, Secret):
            return self._hidden(f"{error.option}: expected {error.expected}")
        return self._hidden(str(error))

    def _hidden(self, text: str) -> str:
        """Mask every secret of the file in *text*."""
        for secret in sorted(self._secrets, key=len, reverse=True):
            if len(secret) >= 3:
                text = text.replace(secret, "***")
        return text


def _collect(value: Any, found: set[str]) -> None:
    if isinstance(value, str):
        if value.startswith("@"):
            found.add(value)
    elif isinstance(value, dict):
        for inner in value.values():
            _collect(inner, found)
    elif isinstance(value, list):
        for inner in value:
            _collect(inner, found)


def _is_in(value: Any, items: Any) -> bool:
    return isinstance(items, list) and value in items


def _where(raw: Any, refused: Any) -> Path:
    """Return the path of the refused element in the value as written; empty for the whole."""
    if type(raw) is type(refused) and raw == refused:
        return ()
    inner: Iterable[tuple[Any, Any]] = ()
    if isinstance(raw, dict):
        inner = raw.items()
    elif isinstance(raw, list):
        inner = enumerate(raw)
    for key, value in inner:
        if (type(value) is type(refused) and value == refused) or (isinstance(raw, dict) and key == refused):
            return (key,)
        if isinstance(value, (dict, list)):
            below = _where(value, refused)
            if below:
                return (key, *below)
    return ()


def _stand_in(use: str) -> Callable[..., Any]:
    """Return an app that takes the place of one that was not imported."""

    def not_imported(environ: Any, start_response: Any) -> Any:
        raise RuntimeError(f"{use} was not imported; this stack was only checked")

    not_imported.is_stand_in = True  # type: ignore[attr-defined]
    return not_imported

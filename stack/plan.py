"""From stack files to one plan: what ``extends`` and a profile make of the layers, in order.

A child file says what it changes of its parent:

- ``[app]`` replaces the parent's;
- a ``[[layer]]`` whose id the parent has changes that layer in place, option by option (another
  ``use`` replaces it whole); one with a new id goes inside the parent's layers;
- ``[[insert]]`` with ``before`` or ``after`` puts a layer elsewhere, ``disable`` removes layers;
- sub-stacks follow the same rules, by name; profiles of the same name are applied one after the
  other, the parent's first; the other statements add up.

A profile is applied last: its insertions, its options, what it disables.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from typing import Any

from lamella.stack.document import Document, Raw, read, shown
from lamella.stack.problems import Problem, StackFileError, did_you_mean
from lamella.stack.references import default_id
from lamella.stack.scanner import Path

__all__ = ["Body", "Plan", "RawLayer", "make_plan"]

_ID = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
_RESERVED = ("use", "id", "when")
_TOP = (
    "lamella", "extends", "app", "layer", "insert", "disable", "stack", "profile", "expect", "silence", "describe",
    "budget",
)  # fmt: skip


class RawLayer:
    """A ``[[layer]]`` or ``[[insert]]`` as written, or several of one id merged.

    Args:
        document: The file that it stands in.
        path: Where in it.
        stack: Name of the sub-stack; empty for the main one.
    """

    __slots__ = ("document", "id", "id_at", "options", "path", "profile", "stack", "use", "when")

    def __init__(self, document: Document, path: Path, stack: str) -> None:
        self.document = document
        self.path = path
        self.stack = stack
        self.profile = ""
        self.id = ""
        self.id_at: Path = path
        self.use: Raw | None = None
        self.when: Raw | None = None
        self.options: dict[str, Raw] = {}

    @property
    def full_id(self) -> str:
        return f"{self.stack}/{self.id}" if self.stack else self.id

    def merged(self, other: RawLayer) -> RawLayer:
        """Return this layer as *other*, of the same id, changes it."""
        made = RawLayer(other.document, other.path, self.stack)
        made.id, made.id_at = other.id, other.id_at
        made.profile = self.profile
        replaced = other.use is not None and self.use is not None and other.use.value != self.use.value
        made.use = other.use or self.use
        made.when = other.when or (None if replaced else self.when)
        made.options = dict(other.options) if replaced else {**self.options, **other.options}
        return made

    def copy(self) -> RawLayer:
        made = self.merged(self)
        made.profile = self.profile
        return made


class Body:
    """The layers and the app of one stack.

    Args:
        path: Of the table in the file that names it first.
        document: That file.
    """

    __slots__ = ("app", "app_options", "document", "layers", "path")

    def __init__(self, document: Document, path: Path) -> None:
        self.document = document
        self.path = path
        self.layers: list[RawLayer] = []
        self.app: Raw | None = None
        self.app_options: dict[str, Raw] = {}

    def copy(self) -> Body:
        made = Body(self.document, self.path)
        made.layers = [layer.copy() for layer in self.layers]
        made.app, made.app_options = self.app, dict(self.app_options)
        return made


class Plan:
    """What is to be built, and what is only to be checked.

    Args:
        documents: The files, the outermost parent first.
    """

    __slots__ = ("bodies", "disabled", "documents", "spare_layers", "spare_options")

    def __init__(self, documents: list[Document]) -> None:
        self.documents = documents
        #: By name; the main one under the empty name.
        self.bodies: dict[str, Body] = {}
        #: Ids of layers that stand in a file and do not run: a silence may still name them.
        self.disabled: list[str] = []
        #: Layers that another profile would insert.
        self.spare_layers: list[RawLayer] = []
        #: Options that another profile would set: the layer with its other options, and the option's name.
        self.spare_options: list[tuple[RawLayer, str, Raw]] = []

    @property
    def main(self) -> Document:
        """The file that was asked for."""
        return self.documents[-1]

    def layers(self) -> Iterable[RawLayer]:
        """Yield the layers of every stack."""
        for body in self.bodies.values():
            yield from body.layers

    def ids(self) -> list[str]:
        """Return the id of every layer, as a profile addresses it."""
        return [layer.full_id for layer in self.layers()]


def make_plan(file: str, profile: str | None) -> Plan:
    """Read a stack file and its parents.

    Mistakes are noted in the documents.

    Raises:
        StackFileError: A file cannot be read or is no TOML, or the parents form a circle.
    """
    plan = Plan(_chain(file))
    for number, document in enumerate(plan.documents):
        _check_top(document)
        _Merge(plan, document, number > 0).bodies()
    _profiles(plan, profile)
    return plan


def _chain(file: str) -> list[Document]:
    """Read the file and its parents; the parents first."""
    documents: list[Document] = []
    seen: dict[str, str] = {}
    while True:
        try:
            document = read(file)
        except StackFileError as error:
            if not documents:
                raise
            child = documents[-1]
            (problem,) = error.problems
            if problem.line == 1 and problem.column == 1 and "cannot be read" in problem.message:
                child.refuse(("extends",), f"{child.data['extends']}: {problem.message}", "syntax")
                problem = child.problems[-1]
            raise StackFileError([problem]) from None
        seen[os.path.realpath(file)] = file
        documents.append(document)
        parent = document.data.get("extends")
        if parent is None:
            return documents[::-1]
        if not isinstance(parent, str) or not parent or "\0" in parent:
            document.refuse(("extends",), f"expected the path of one stack file, not {shown(parent)}")
            return documents[::-1]
        file = os.path.join(os.path.dirname(file), parent)
        if os.path.realpath(file) in seen:
            circle = " → ".join([*seen.values(), seen[os.path.realpath(file)]])
            line, column = document.value(("extends",))
            message = f"extends goes in a circle: {circle}"
            raise StackFileError([Problem(document.file, line, column, message, phase="references")])


def _check_top(document: Document) -> None:
    """The format version, and the names at the top."""
    document.known_keys((), document.data, _TOP, "a stack file")
    if "lamella" not in document.data:
        document.refuse_key((), "the format version is missing: begin the file with `lamella = 1`")
    elif document.data["lamella"] != 1 or isinstance(document.data["lamella"], bool):
        document.refuse(("lamella",), f"this version reads the format 1, not {shown(document.data['lamella'])}")


class _Merge:
    """Adds the statements of one file to the plan.

    Args:
        plan: What the parents made.
        document: The file.
        is_child: It extends another.
    """

    def __init__(self, plan: Plan, document: Document, is_child: bool) -> None:
        self._plan = plan
        self._document = document
        self._is_child = is_child

    def bodies(self) -> None:
        """Read the main stack and the sub-stacks."""
        document = self._document
        self._body("", (), document.data)
        for name, value in document.table(("stack",), document.data.get("stack", {})).items():
            path: Path = ("stack", name)
            if _ID.fullmatch(name) is None:
                document.refuse_key(path, "the name of a sub-stack has letters, digits, _ and -")
                continue
            table = document.table(path, value)
            document.known_keys(path, table, ("app", "layer", "insert", "disable"), f"[stack.{name}]")
            self._body(name, path, table)
            if self._plan.bodies[name].app is None and isinstance(value, dict) and "app" not in table:
                document.refuse_key(path, f"the sub-stack `{name}` has no app: app = {{ use = … }}")
        if self._plan.bodies[""].app is None and "app" not in document.data and document is self._plan.main:
            document.refuse_key((), 'the stack has no app: [app] with use = "module:attribute"')

    def _body(self, name: str, path: Path, table: dict[str, Any]) -> None:
        """Merge one stack: app, layers, insertions, what is disabled."""
        document = self._document
        body = self._plan.bodies.setdefault(name, Body(document, path))
        if "app" in table:
            body.app, body.app_options = read_app(document, (*path, "app"), table["app"])
        inherited = {layer.id: i for i, layer in enumerate(body.layers)}
        written: dict[str, RawLayer] = {}
        for i, one in enumerate(document.tables((*path, "layer"), table.get("layer", []))):
            layer = read_layer(document, (*path, "layer", i), one, name)
            if not layer.id:
                if layer.use is None and "use" not in one:
                    document.refuse_key(layer.path, "a layer needs `use`")
                continue
            if layer.id in written:
                line, _ = document.key(written[layer.id].path)
                message = f"the id `{layer.id}` is taken by the layer in line {line}; give one of them another `id`"
                document.refuse(layer.id_at, message)
                continue
            written[layer.id] = layer
            if layer.id in inherited:
                body.layers[inherited[layer.id]] = body.layers[inherited[layer.id]].merged(layer)
            elif layer.use is None:
                if "use" in one:
                    continue
                hint = did_you_mean(layer.id, inherited) if self._is_child else ""
                parent = f"; the parent has no layer `{layer.id}`{hint}" if self._is_child else ""
                document.refuse_key(layer.path, f"a layer needs `use`{parent}")
            else:
                body.layers.append(layer)
        for key in ("insert", "disable"):
            if key in table and not self._is_child:
                document.refuse_key((*path, key), f"`{key}` changes a parent or belongs to a profile; without `extends`"
                                    " write the layers as they are to run")  # fmt: skip
        if self._is_child:
            self._insertions(name, (*path, "insert"), table.get("insert", []))
            value = table.get("disable", [])
            self._plan.disabled += disable(self._plan.bodies, document, (*path, "disable"), value, name)

    def _insertions(self, name: str, path: Path, value: Any) -> None:
        for i, one in enumerate(self._document.tables(path, value)):
            insert(self._plan.bodies, self._document, (*path, i), one, name)


def read_app(document: Document, path: Path, value: Any, profile: str = "") -> tuple[Raw | None, dict[str, Raw]]:
    """``[app]``: what to use, and the options of a factory."""
    table = document.table(path, value)
    options = {key: Raw(document, (*path, key), inner, profile) for key, inner in table.items() if key != "use"}
    if "use" not in table:
        if isinstance(value, dict):
            hint = next((did_you_mean(key, ["use"]) for key in table if did_you_mean(key, ["use"])), "")
            document.refuse_key(path, f'an app needs `use`, such as "module:attribute"{hint}')
        return Raw(document, path, None), {}
    use = document.text((*path, "use"), table["use"], 'the name of an app, such as "module:attribute"')
    return Raw(document, (*path, "use"), use or None, profile), options


def read_layer(
    document: Document, path: Path, table: dict[str, Any], stack: str, *, profile: str = "", also: tuple[str, ...] = ()
) -> RawLayer:
    """Read one layer; *also* names keys that are no options."""
    layer = RawLayer(document, path, stack)
    layer.profile = profile
    if "use" in table:
        use = document.text((*path, "use"), table["use"], "the name of a layer")
        if use:
            layer.use = Raw(document, (*path, "use"), use, profile)
            layer.id, layer.id_at = default_id(use), (*path, "use")
    if "id" in table:
        layer.id_at = (*path, "id")
        layer.id = table["id"] if isinstance(table["id"], str) else ""
        if _ID.fullmatch(layer.id) is None:
            document.refuse(layer.id_at, f"expected an id of letters, digits, _ and -, not {shown(table['id'])}")
            layer.id = ""
    elif layer.id and _ID.fullmatch(layer.id) is None:
        message = f"give the layer an `id` of letters, digits, _ and -: {shown(layer.id)} is none"
        document.refuse((*path, "use"), message)
        layer.id = ""
    if "when" in table:
        layer.when = Raw(document, (*path, "when"), table["when"], profile)
    for key, value in table.items():
        if key not in _RESERVED and key not in also:
            layer.options[key] = Raw(document, (*path, key), value, profile)
    return layer


def find(bodies: dict[str, Body], id: str, stack: str = "") -> tuple[Body, int] | None:
    """Return the body and the index of a layer, by ``id`` or ``sub-stack/id``."""
    name, slash, last = id.rpartition("/")
    body = bodies.get(name if slash else stack)
    for i, layer in enumerate(body.layers if body is not None else ()):
        if layer.id == last and body is not None:
            return body, i
    return None


def no_layer(bodies: dict[str, Body], id: str) -> str:
    """Say that no layer has this id, and which is near."""
    known = [layer.full_id for body in bodies.values() for layer in body.layers]
    elsewhere = [one for one in known if one.rpartition("/")[2] == id]
    hint = f" (did you mean `{elsewhere[0]}`?)" if elsewhere else did_you_mean(id, known)
    return f"no layer has the id `{id}`{hint or '; there are ' + (', '.join(f'`{one}`' for one in known) or 'none')}"


def insert(
    bodies: dict[str, Body], document: Document, path: Path, table: dict[str, Any], stack: str, profile: str = ""
) -> RawLayer | None:
    """``[[insert]]``: put one more layer beside another."""
    layer = read_layer(document, path, table, stack, profile=profile, also=("before", "after"))
    sides = [side for side in ("before", "after") if side in table]
    if layer.use is None and "use" not in table:
        document.refuse_key(path, "a layer needs `use`")
    if len(sides) != 1:
        document.refuse_key(path, "[[insert]] needs one of `before` and `after`, with the id of a layer")
        return None
    neighbour = document.text((*path, sides[0]), table[sides[0]], "the id of a layer")
    found = find(bodies, neighbour, stack) if neighbour else None
    if found is None:
        if neighbour:
            document.refuse((*path, sides[0]), no_layer(bodies, neighbour))
        return None
    if layer.use is None or not layer.id:
        return None
    body, index = found
    layer.stack = body.layers[index].stack
    if any(other.id == layer.id for other in body.layers):
        document.refuse(layer.id_at, f"the id `{layer.full_id}` is taken; give this layer another `id`")
        return None
    body.layers.insert(index + (sides[0] == "after"), layer)
    return layer


def disable(bodies: dict[str, Body], document: Document, path: Path, value: Any, stack: str) -> list[str]:
    """``disable = [...]``: take layers away; return their ids."""
    gone = []
    for i, name in enumerate(value if isinstance(value, list) else document.texts(path, value, "a list of ids")):
        if not isinstance(name, str) or not name:
            document.refuse((*path, i), f"expected the id of a layer, not {shown(name)}")
            continue
        found = find(bodies, name, stack)
        if found is None:
            document.refuse((*path, i), no_layer(bodies, name))
        else:
            body, index = found
            gone.append(body.layers.pop(index).full_id)
    return gone


# --- profiles -----------------------------------------------------------------------------------


def _profiles(plan: Plan, chosen: str | None) -> None:
    """Apply the chosen profile; check the others against the stack without any."""
    names: dict[str, list[Document]] = {}
    for document in plan.documents:
        for name in document.table(("profile",), document.data.get("profile", {})):
            names.setdefault(name, []).append(document)
    if chosen is not None and chosen not in names:
        known = ", ".join(f"`{name}`" for name in names) or "none"
        hint = did_you_mean(chosen, names) or f"; there are {known}"
        plan.main.refuse_key(("profile",), f"no profile is called `{chosen}`{hint}")
    base = {name: body.copy() for name, body in plan.bodies.items()}
    for name, documents in names.items():
        bodies = plan.bodies if name == chosen else {key: body.copy() for key, body in base.items()}
        for document in documents:
            _apply(plan, bodies, document, name, name == chosen)


def _apply(plan: Plan, bodies: dict[str, Body], document: Document, name: str, is_chosen: bool) -> None:
    """Apply one ``[profile.name]``: insertions, options, what it disables."""
    path: Path = ("profile", name)
    table = document.table(path, document.data["profile"][name])
    for i, one in enumerate(document.tables((*path, "insert"), table.get("insert", []))):
        layer = insert(bodies, document, (*path, "insert", i), one, "", name)
        if layer is not None and not is_chosen:
            plan.spare_layers.append(layer)
    if "app" in table:
        bodies[""].app, bodies[""].app_options = read_app(document, (*path, "app"), table["app"], name)
    for key, value in table.items():
        if key in ("insert", "disable", "app"):
            continue
        if key == "layer":
            document.refuse_key((*path, key), "a profile adds a layer with [[insert]] and `before` or `after`")
        elif "." in key:
            layer_id, _, option = key.rpartition(".")
            _set_option(plan, bodies, Raw(document, (*path, key), value, name), layer_id, option, is_chosen)
        elif isinstance(value, dict):
            for option, inner in value.items():
                _set_option(plan, bodies, Raw(document, (*path, key, option), inner, name), key, option, is_chosen)
        else:
            hint = did_you_mean(key, ("insert", "disable", "app"))
            document.refuse_key((*path, key), f'a profile has lines "id.option" = value, not `{key}`{hint}')
    gone = disable(bodies, document, (*path, "disable"), table.get("disable", []), "")
    if is_chosen:
        plan.disabled += gone


def _set_option(plan: Plan, bodies: dict[str, Body], raw: Raw, layer_id: str, option: str, is_chosen: bool) -> None:
    """``"id.option" = value``."""
    document = raw.document
    found = find(bodies, layer_id)
    if found is None:
        if layer_id == "app" and option == "use":
            use = document.text(raw.path, raw.value, "the name of an app")
            bodies[""].app, bodies[""].app_options = Raw(document, raw.path, use or None, raw.profile), {}
            return
        document.refuse_key(raw.path, no_layer(bodies, layer_id))
        return
    body, index = found
    layer = body.layers[index]
    if option in ("use", "id"):
        document.refuse_key(raw.path, f"a profile does not change `{option}`; use `disable` and [[profile.x.insert]]")
    elif option == "when":
        layer.when = raw
        if not is_chosen:
            plan.spare_options.append((layer, "when", raw))
    else:
        layer.options[option] = raw
        if not is_chosen:
            plan.spare_options.append((layer, option, raw))

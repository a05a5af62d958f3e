"""A stack as Python source, as a JSON Schema, as a picture."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import jsonschema
import pytest

import lamella.apps.demo
from lamella.middleware.request_id import RequestIdMiddleware
from lamella.stack import Layer, Stack, load
from lamella.stack.eject import EjectError, eject
from lamella.stack.picture import svg
from lamella.stack.schema import schema
from lamella.stack.testing import call, environ

DEMO = Path(lamella.apps.demo.__path__[0]) / "stack.toml"
STACKS = Path(__file__).parents[1] / "stacks"
STACK = """
lamella = 1
[app]
use = "lamella.apps.demo.legacy:app"

[[layer]]
use = "edge"

[[layer]]
use = "cors"
origins = ["https://shop.example", { suffix = ".shop.example" }]
when = { paths = ["/api/*"], methods = ["GET"] }

[[layer]]
use = "session"
secret = [{ env = "EJECT_KEY" }, { file = "old.key" }, { insecure = "'quoted' \\"text\\" of an old, long key" }]

[[layer]]
use = "dispatch"
[layer.mounts]
"/staff" = "@staff"
"/again" = "@staff"
"/old" = { app = "lamella.apps.demo.legacy:app", relocate = true }

[stack.staff]
app = { use = "lamella.apps.demo.notes:application" }
[[stack.staff.layer]]
use = "security_headers"
csp = { default-src = ["self"], script-src = ["self", "nonce"], style-src = ["self"], img-src = ["self", "data:"] }
"""
#: Headers that differ from one request to the next.
FRESH = {"x-request-id", "traceparent", "content-security-policy", "date", "set-cookie"}


@pytest.fixture
def stack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stack:
    """A stack with a scope, sub-stacks and secrets from three places."""
    monkeypatch.setenv("EJECT_KEY", "from-the-environment-0123456789-abcdef")
    monkeypatch.setenv("LAMELLA_DEMO_DB", str(tmp_path / "notes.sqlite3"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "old.key").write_text("from-a-file-0123456789-abcdefghijklmnop\n", encoding="utf-8")
    (tmp_path / "stack.toml").write_text(STACK, encoding="utf-8")
    return load(tmp_path / "stack.toml")


def ejected(stack: Stack) -> Any:
    """The application of the written module."""
    namespace: dict[str, Any] = {"__name__": "ejected"}
    exec(compile(eject(stack), "ejected.py", "exec"), namespace)
    return namespace["application"]


@pytest.mark.parametrize("path", ["/", "/staff", "/staff/", "/again/", "/old/who", "/api/x", "/nope", "//x", "/sign"])
@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "POST"])
def test_the_ejected_module_answers_as_the_stack(stack: Stack, path: str, method: str) -> None:
    """Status, headers and body, over mounts, scopes and errors."""
    request = environ(method, path, origin="https://a.shop.example")

    expected, given = call(stack, dict(request)), call(ejected(stack), dict(request))

    assert (given.status, given.body) == (expected.status, expected.body)
    assert [header for header in given.headers if header[0].lower() not in FRESH] == [
        header for header in expected.headers if header[0].lower() not in FRESH
    ]


def test_the_ejected_module_reads_secrets_where_the_stack_file_did(stack: Stack) -> None:
    """From the environment and from the file; neither stands in the source."""
    source = eject(stack)

    assert 'os.environ["EJECT_KEY"]' in source
    assert 'Path("old.key").read_text' in source
    assert "from-the-environment" not in source
    assert "from-a-file" not in source
    assert max(map(len, source.splitlines())) <= 160


def test_the_demo_can_be_ejected() -> None:
    """What we ship, too."""
    assert call(ejected(load(DEMO)), environ("GET", "/healthz")).code == 200


def test_an_object_without_a_name_is_told() -> None:
    """A function made on the spot has no form as source."""

    def app(request: Any, start_response: Any) -> list[bytes]:
        return []

    with pytest.raises(EjectError, match="no name that can be imported"):
        eject(Stack([Layer(RequestIdMiddleware)], app=app))


@pytest.fixture(scope="module")
def validator() -> Any:
    """Another project's validator, with our schema."""
    made = jsonschema.Draft202012Validator(schema())
    made.check_schema(made.schema)
    return made


@pytest.mark.parametrize("path", [DEMO, *sorted(STACKS.glob("*.toml"))], ids=lambda path: path.name)
def test_the_schema_accepts_our_stack_files(validator: Any, path: Path) -> None:
    """Each stack file that we ship or test with."""
    assert [error.message for error in validator.iter_errors(tomllib.loads(path.read_text("utf-8")))] == []


@pytest.mark.parametrize(
    ("old", "new"),
    [
        pytest.param("origins", "orgins", id="an unknown option"),
        pytest.param('"cors"', '"corz"', id="an unknown layer"),
        pytest.param("methods", "method", id="an unknown key of a scope"),
        pytest.param("lamella = 1", "lamella = 2", id="another version"),
        pytest.param("lamella = 1", "lamela = 1", id="an unknown statement"),
        pytest.param('{ env = "EJECT_KEY" }', '"text"', id="a literal secret"),
        pytest.param('["https://shop.example", { suffix = ".shop.example" }]', "true", id="a wrong type"),
    ],
)
def test_the_schema_refuses_mistakes(validator: Any, old: str, new: str) -> None:
    """As an editor would, while it is typed."""
    assert list(validator.iter_errors(tomllib.loads(STACK))) == []

    assert list(validator.iter_errors(tomllib.loads(STACK.replace(old, new, 1))))


def test_the_picture_is_well_formed_and_hides_secrets(stack: Stack) -> None:
    """Every layer and mount is drawn; nothing secret, nothing unescaped."""
    drawn = svg(stack)

    root = ElementTree.fromstring(drawn)
    text = " ".join(root.itertext())
    assert all(name in text for name in ("edge", "cors", "session", "dispatch", "security_headers", "/staff → @staff"))
    assert "***" in text
    assert "old, long key" not in drawn
    assert "from-a-file" not in drawn

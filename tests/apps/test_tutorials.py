"""Snippets as tutorials have them, mounted without a changed line; and the wrong ones, told what to change."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lamella.stack import load
from lamella.stack.testing import Response, call, environ

STACK = """
lamella = 1
app = {{ use = "wsgiref.simple_server:demo_app" }}

[[layer]]
use = "edge"

[[layer]]
use = "cors"
origins = ["https://page.example"]

[[layer]]
use = "errors"

[[layer]]
use = "compress"

[[layer]]
use = "session"
cookie_name = "site"
secret = {{ insecure = "0123456789abcdef0123456789abcdef" }}
secure = false

[[layer]]
use = "dispatch"

[layer.mounts]
"/app" = {{ app = "{use}", cookies = "scope", relocate = true }}
"""


class Client:
    """Asks a mounted app, keeping its cookies."""

    def __init__(self, stack: Any) -> None:
        self.stack = stack
        self.cookies: dict[str, str] = {}

    def __call__(self, method: str, path: str, body: bytes = b"", **headers: str) -> Response:
        cookie = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        answer = call(
            self.stack, environ(method, path, body=body, **{**headers, **({"cookie": cookie} if cookie else {})})
        )
        for name, value in answer.headers:
            if name == "Set-Cookie":
                key, _, rest = value.partition("=")
                self.cookies[key] = rest.partition(";")[0]
        return answer

    def form(self, path: str, text: str) -> Response:
        """Send a form."""
        return self("POST", path, text.encode(), content_type="application/x-www-form-urlencoded")


Mount = Callable[..., Client]


@pytest.fixture
def mount(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Mount:
    """Writes a snippet into a module, and mounts it at /app."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.delitem(sys.modules, "tutorial", raising=False)

    def mounted(source: str, attribute: str = "app", **files: str) -> Client:
        (tmp_path / "tutorial.py").write_text(textwrap.dedent(source), encoding="utf-8")
        for name, text in files.items():
            path = tmp_path / name.replace("__", "/").replace("_html", ".html")
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
        (tmp_path / "stack.toml").write_text(STACK.format(use=f"tutorial:{attribute}"), encoding="utf-8")
        return Client(load(tmp_path / "stack.toml"))

    return mounted


# --- WSGI itself ----------------------------------------------------------------------------------


def test_a_function_with_a_list_body(mount: Mount) -> None:
    """The first page of every tutorial."""
    ask = mount(
        """
        def application(environ, start_response):
            status = '200 OK'
            output = b'Hello World!'
            response_headers = [('Content-type', 'text/plain'),
                                ('Content-Length', str(len(output)))]
            start_response(status, response_headers)
            return [output]
        """,
        "application",
    )

    assert ask("GET", "/app/").body == b"Hello World!"
    assert ask("HEAD", "/app/").body == b""


def test_a_class_with_iter(mount: Mount) -> None:
    """PEP 3333's own AppClass."""
    ask = mount(
        """
        HELLO_WORLD = b"Hello world!\\n"

        class AppClass:
            def __init__(self, environ, start_response):
                self.environ = environ
                self.start = start_response

            def __iter__(self):
                status = '200 OK'
                response_headers = [('Content-type', 'text/plain')]
                self.start(status, response_headers)
                yield HELLO_WORLD
        """,
        "AppClass",
    )

    answer = ask("GET", "/app/x")

    assert (answer.code, answer.body) == (200, b"Hello world!\n")


# --- Flask ----------------------------------------------------------------------------------------


def test_flask_routes_and_converters(mount: Mount) -> None:
    """With ``escape`` and ``url_for``, under the prefix."""
    ask = mount(
        """
        from flask import Flask, url_for
        from markupsafe import escape

        app = Flask(__name__)

        @app.route('/')
        def index():
            return url_for('show_post', post_id=7, next='/')

        @app.route('/user/<username>')
        def show_user_profile(username):
            return f'User {escape(username)}'

        @app.route('/post/<int:post_id>')
        def show_post(post_id):
            return f'Post {post_id}'

        @app.route('/path/<path:subpath>')
        def show_subpath(subpath):
            return f'Subpath {escape(subpath)}'

        @app.route('/projects/')
        def projects():
            return 'The project page'
        """
    )

    assert ask("GET", "/app/").body == b"/app/post/7?next=/"
    assert ask("GET", "/app/user/<b>").body == b"User &lt;b&gt;"
    assert ask("GET", "/app/post/12").body == b"Post 12"
    assert ask("GET", "/app/post/x").code == 404
    assert ask("GET", "/app/path/a/b").body == b"Subpath a/b"
    assert (ask("GET", "/app/projects").header("Location") or "").endswith("/app/projects/")
    assert ask("GET", "/app").header("Location") == "/app/"


def test_flask_session_login_and_redirects(mount: Mount) -> None:
    """``redirect('/index')`` forgets the prefix, and the mount repairs it; the session keeps its name."""
    ask = mount(
        """
        from flask import Flask, redirect, request, session

        app = Flask(__name__)
        app.secret_key = b'_5#y2L"F4Q8z\\n\\xec]/'

        @app.before_request
        def check_login():
            if request.path != '/login' and 'username' not in session:
                return redirect('/login')

        @app.route('/index')
        def index():
            return f'Logged in as {session["username"]}'

        @app.route('/login', methods=['GET', 'POST'])
        def login():
            if request.method == 'POST':
                session['username'] = request.form['username']
                return redirect('/index')
            return '<form method="post"><input name=username><input type=submit></form>'

        @app.route('/logout')
        def logout():
            session.pop('username', None)
            return redirect('/index')
        """
    )

    assert ask("GET", "/app/index").header("Location") == "/app/login"
    answer = ask.form("/app/login", "username=ada")
    assert answer.header("Location") == "/app/index"
    assert "Path=/app" in (answer.header("Set-Cookie") or "")
    assert ask("GET", "/app/index").body == b"Logged in as ada"
    assert ask("GET", "/app/logout").header("Location") == "/app/index"
    assert ask("GET", "/app/index").header("Location") == "/app/login"


def test_flask_blueprints_and_method_views(mount: Mount) -> None:
    """A blueprint with hooks of its own, a class as a view."""
    ask = mount(
        """
        from flask import Blueprint, Flask, g, jsonify, request, url_for
        from flask.views import MethodView

        bp = Blueprint('auth', __name__, url_prefix='/auth')

        @bp.before_app_request
        def load_logged_in_user():
            g.user = request.headers.get('X-User')

        @bp.route('/whoami')
        def whoami():
            return jsonify(user=g.user, here=url_for('auth.whoami'))

        class UserAPI(MethodView):
            def get(self, user_id):
                return {'id': user_id}

            def delete(self, user_id):
                return '', 204

        app = Flask(__name__)
        app.register_blueprint(bp)
        app.add_url_rule('/users/<int:user_id>', view_func=UserAPI.as_view('user'))
        """
    )

    assert b'"here":"/app/auth/whoami"' in ask("GET", "/app/auth/whoami", x_user="ada").body.replace(b" ", b"")
    assert b'"id":3' in ask("GET", "/app/users/3").body.replace(b" ", b"")
    answer = ask("DELETE", "/app/users/3")
    assert (answer.code, answer.body) == (204, b"")
    assert ask("PUT", "/app/users/3").code == 405


def test_flask_upload_and_download(mount: Mount) -> None:
    """As in the pattern "Uploading Files", with a folder of its own."""
    ask = mount(
        """
        import os, tempfile
        from flask import Flask, flash, request, redirect, url_for, send_from_directory
        from werkzeug.utils import secure_filename

        UPLOAD_FOLDER = tempfile.mkdtemp()
        ALLOWED_EXTENSIONS = {'txt', 'pdf', 'png', 'jpg', 'jpeg', 'gif'}

        app = Flask(__name__)
        app.config['UPLOAD_FOLDER'] = UPLOAD_FOLDER

        def allowed_file(filename):
            return '.' in filename and filename.rsplit('.', 1)[1].lower() in ALLOWED_EXTENSIONS

        @app.route('/', methods=['GET', 'POST'])
        def upload_file():
            if request.method == 'POST':
                file = request.files['file']
                if file and allowed_file(file.filename):
                    filename = secure_filename(file.filename)
                    file.save(os.path.join(app.config['UPLOAD_FOLDER'], filename))
                    return redirect(url_for('download_file', name=filename))
            return '<form method=post enctype=multipart/form-data><input type=file name=file></form>'

        @app.route('/uploads/<name>')
        def download_file(name):
            return send_from_directory(app.config["UPLOAD_FOLDER"], name)
        """
    )
    body = (
        b'--x\r\nContent-Disposition: form-data; name="file"; filename="../a.txt"\r\n\r\n'
        + b"abc" * 5000
        + b"\r\n--x--\r\n"
    )

    answer = ask("POST", "/app/", body, content_type="multipart/form-data; boundary=x")

    assert answer.header("Location") == "/app/uploads/a.txt"
    download = ask("GET", "/app/uploads/a.txt")
    assert download.body == b"abc" * 5000
    assert ask("GET", "/app/uploads/a.txt", if_none_match=download.header("ETag") or "").code == 304
    assert ask("GET", "/app/uploads/a.txt", range="bytes=0-2").body == b"abc"


def test_flask_templates(mount: Mount) -> None:
    """Jinja2 files, inheritance, escaping, and ``url_for('static')``."""
    ask = mount(
        """
        from flask import Flask, render_template

        app = Flask(__name__)

        @app.route('/hello/')
        @app.route('/hello/<name>')
        def hello(name=None):
            return render_template('hello.html', person=name)
        """,
        templates__layout_html="<link href=\"{{ url_for('static', filename='style.css') }}\">"
        "{% block body %}{% endblock %}",
        templates__hello_html="{% extends 'layout.html' %}{% block body %}Hello {{ person or 'World' }}!{% endblock %}",
    )

    assert ask("GET", "/app/hello/").body == b'<link href="/app/static/style.css">Hello World!'
    assert b"Hello &lt;Ada&gt;!" in ask("GET", "/app/hello/<Ada>").body


def test_flask_cors_inside_is_not_doubled(mount: Mount) -> None:
    """Two Access-Control-Allow-Origin would be refused by the browser; the layer's stands."""
    ask = mount(
        """
        from flask import Flask
        from flask_cors import CORS

        app = Flask(__name__)
        CORS(app)

        @app.route('/api')
        def api():
            return {'ok': True}
        """
    )

    def allowed(answer: Response) -> list[str]:
        return [value for name, value in answer.headers if name.lower() == "access-control-allow-origin"]

    assert allowed(ask("GET", "/app/api", origin="https://page.example")) == ["https://page.example"]
    assert allowed(ask("GET", "/app/api", origin="https://evil.example")) == []


# --- wrong ones -----------------------------------------------------------------------------------

WRONG = [
    pytest.param("return 'Hello World'", "returned text as its body: write return [body.encode", id="a str body"),
    pytest.param("return b'Hello World'", "returned bare bytes as its body", id="a bytes body"),
    pytest.param("return ['Hello']", "has text in its body: encode each part", id="a list of str"),
    pytest.param("pass", "returned nothing: end it with return [b", id="no return"),
]


@pytest.mark.parametrize(("line", "fault"), WRONG)
def test_a_wrong_body_is_named(mount: Mount, caplog: pytest.LogCaptureFixture, line: str, fault: str) -> None:
    """The app, the fault and the cure are in the log; the visitor sees a 500."""
    ask = mount(
        f"""
        def app(environ, start_response):
            start_response('200 OK', [('Content-Type', 'text/plain')])
            {line}
        """
    )

    answer = ask("GET", "/app/")

    assert answer.code == 500
    assert b"Hello" not in answer.body
    assert f"the app at /app {fault}" in caplog.text


def test_a_status_of_five_digits_is_named(mount: Mount, caplog: pytest.LogCaptureFixture) -> None:
    """``start_response('20000', …)``."""
    ask = mount(
        """
        def app(environ, start_response):
            start_response('20000', [('Content-Type', 'text/plain')])
            return [b'x']
        """
    )

    assert ask("GET", "/app/").code == 500
    assert "the app at /app gave the status '20000', which is none: write three digits" in caplog.text


@pytest.mark.parametrize("command", ["check", "run"])
def test_a_random_key_is_refused_for_four_workers(mount: Mount, tmp_path: Path, command: str) -> None:
    """Both commands name the app, the fault with its line, and the cure, at the line of the mount."""
    mount(
        """
        import os
        from flask import Flask

        app = Flask(__name__)
        app.config['SECRET_KEY'] = os.urandom(24)
        """
    )
    packages = next(folder for folder in sys.path if (Path(folder) / "lamella" / "middleware").is_dir())
    program = f"import sys; sys.path[:0] = [{packages!r}, '.']; from lamella.stack.cli import main; main()"
    server = ["--server", "gunicorn", "--bind", "127.0.0.1:0"] if command == "run" else []

    done = subprocess.run(
        [sys.executable, "-c", program, command, "stack.toml", "--workers", "4", *server],
        cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip

    assert done.returncode == 6
    told = " ".join(done.stderr.split())
    lines = (tmp_path / "stack.toml").read_text().splitlines()
    line = next(number for number, text in enumerate(lines, 1) if text.startswith('"/app"'))
    assert f"stack.toml:{line}:1: the mount `/app` (tutorial:app): SECRET_KEY is made by urandom() anew in each" in told
    assert "(tutorial.py, line 6): a session that one of the 4 workers signed is none to the others" in told
    assert "SECRET_KEY = os.environ[" in told

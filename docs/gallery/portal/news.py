"""A Flask app: forms, flashes, uploads, and a session that is the portal's own."""

import io

from flask import Blueprint, Flask, flash, redirect, render_template_string, request, send_file, session, url_for

from lamella.apps.flask_session import FlaskSessionInterface

app = Flask(__name__, static_folder="assets", static_url_path="/assets")
app.session_interface = FlaskSessionInterface()

board = Blueprint("board", __name__)
lines = []
files = {}

PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>News</title>
<link rel="stylesheet" href="{{ url_for('static', filename='news.css') }}">
<h1>News</h1>
<p>You are <b id="user">{{ request.remote_user }}</b>, this is page {{ session.pages }} of yours.
<a href="/">Portal</a></p>
{% for message in get_flashed_messages() %}<p role="status">{{ message }}</p>{% endfor %}
<ul>{% for line in lines %}<li>{{ line }}</li>{% endfor %}</ul>
<form method="post" action="{{ url_for('board.post') }}">
  <input name="line" aria-label="Line" required><button>Post</button>
</form>
<form method="post" action="{{ url_for('board.upload') }}" enctype="multipart/form-data">
  <input type="file" name="file" aria-label="File" required><button>Upload</button>
</form>
{% for name in files %}<a href="{{ url_for('board.download', name=name) }}">{{ name }}</a>{% endfor %}
</html>"""


@app.before_request
def count():
    if request.endpoint != "static":
        session["pages"] = session.get("pages", 0) + 1


@board.route("/")
def index():
    return render_template_string(PAGE, lines=lines, files=files)


@board.post("/post")
def post():
    lines.append(f"{request.remote_user}: {request.form['line']}")
    flash("Posted.")
    return redirect(url_for(".index"))


@board.post("/upload")
def upload():
    file = request.files["file"]
    files[file.filename] = file.read()
    return redirect("/")  # forgets the prefix; the mount repairs it


@board.route("/files/<name>")
def download(name):
    return send_file(io.BytesIO(files[name]), download_name=name, as_attachment=True)


app.register_blueprint(board)

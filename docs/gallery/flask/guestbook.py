import io
from pathlib import Path

from flask import Blueprint, Flask, abort, flash, redirect, render_template, request, send_file, session, url_for
from werkzeug.utils import secure_filename

app = Flask(__name__)
app.secret_key = "the gallery's own key: a real one comes from the environment"
app.config["MAX_CONTENT_LENGTH"] = 1024 * 1024

entries = [("Ada", "What a lovely engine.")]
pictures = {}

admin = Blueprint("admin", __name__, url_prefix="/admin")


@app.before_request
def count():
    session["pages"] = session.get("pages", 0) + 1


@app.route("/")
def index():
    ours = request.environ["lamella.session"]
    ours["visits"] = ours.get("visits", 0) + 1
    return render_template("index.html", entries=entries, pictures=pictures, visits=ours["visits"])


@app.post("/sign")
def sign():
    entries.append((request.form["name"], request.form["text"]))
    flash("Thank you!")
    return redirect(url_for("index"))


@app.post("/pictures")
def upload():
    file = request.files["picture"]
    name = secure_filename(file.filename or "") or abort(400)
    pictures[name] = file.read()
    return redirect(url_for("picture", name=name))


@app.route("/pictures/<name>")
def picture(name):
    return send_file(io.BytesIO(pictures.get(name) or abort(404)), download_name=name)


@admin.route("/<int:number>/delete", methods=["POST"])
def delete(number):
    del entries[number]
    return redirect("/")  # a tutorial's absolute path: it forgets the prefix


@admin.route("/")
def overview():
    return {"entries": len(entries), "here": url_for("admin.overview"), "root": str(Path(request.script_root))}


app.register_blueprint(admin)

from bottle import Bottle, redirect, request, static_file, template

app = Bottle()
recipes = {"scones": "Flour, butter, milk."}


@app.get("/")
def index():
    return template(
        """<h1>Recipes</h1>
% for name in recipes:
<p><a href="{{root}}/recipes/{{name}}">{{name}}</a></p>
% end
<form method="post" action="{{root}}/recipes"><input name="name"><input name="text"><button>Add</button></form>""",
        recipes=recipes,
        root=request.script_name.rstrip("/"),
    )


@app.get("/recipes/<name>")
def recipe(name):
    return {"name": name, "text": recipes[name], "user": (request.auth or ("nobody",))[0]}


@app.post("/recipes")
def add():
    recipes[request.forms.name] = request.forms.text
    redirect("/")  # Bottle makes an absolute address of it, without the prefix


@app.get("/source")
def source():
    return static_file("recipes.py", root=".", mimetype="text/plain")

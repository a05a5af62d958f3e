from dash import Dash, Input, Output, dcc, html

app = Dash(
    __name__,
    requests_pathname_prefix="/figures/",
    routes_pathname_prefix="/",
    title="Figures",
    assets_folder="figures_assets",
)

app.layout = html.Main(
    [
        html.H1("Figures"),
        html.A("Portal", href="/"),
        dcc.Dropdown(["squares", "cubes"], "squares", id="kind", clearable=False),
        html.P(id="sum"),
        dcc.Graph(id="graph"),
    ]
)


@app.callback(Output("graph", "figure"), Output("sum", "children"), Input("kind", "value"))
def draw(kind):
    power = {"squares": 2, "cubes": 3}[kind]
    values = [n**power for n in range(10)]
    return {"data": [{"type": "bar", "y": values}]}, f"The sum of ten {kind} is {sum(values)}."


server = app.server

import falcon


class Things:
    """A collection."""

    def __init__(self):
        self.names = ["anvil"]

    def on_get(self, request, response):
        response.media = {"things": self.names, "here": request.prefix, "user": request.context.get("user")}

    def on_post(self, request, response):
        self.names.append(request.media["name"])
        response.status = falcon.HTTP_201
        response.location = f"{request.prefix}/things/{len(self.names) - 1}"


class Lines:
    """An answer that comes in pieces."""

    def on_get(self, request, response):
        response.content_type = "text/plain"
        response.stream = (f"line {n}\n".encode() for n in range(3))


app = falcon.App()
app.add_route("/things", Things())
app.add_route("/lines", Lines())

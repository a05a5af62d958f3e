class Greeting:
    """Called with a request, it is the body of the answer as well."""

    def __init__(self, environ, start_response):
        self.environ = environ
        self.start_response = start_response

    def __iter__(self):
        self.start_response("200 OK", [("Content-Type", "text/plain; charset=utf-8")])
        yield b"Hello "
        yield self.environ.get("REMOTE_USER", "stranger").encode("latin-1")
        yield b"!\n"


class Counter:
    """An instance that is called: it may keep things from one request to the next."""

    def __init__(self, start=0):
        self.count = start

    def __call__(self, environ, start_response):
        self.count += 1
        start_response("200 OK", [("Content-Type", "text/plain; charset=utf-8")])
        return [f"{self.count}\n".encode()]


counter = Counter(start=41)

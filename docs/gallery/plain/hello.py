def application(environ, start_response):
    name = environ["PATH_INFO"].strip("/") or "world"
    start_response("200 OK", [("Content-Type", "text/plain; charset=utf-8")])
    return [f"Hello {name}! This is request {environ['lamella.request_id']}.\n".encode()]

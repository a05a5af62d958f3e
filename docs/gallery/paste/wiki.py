from pathlib import Path

from paste.deploy import loadapp


class Wiki:
    def __init__(self, title):
        self.title = title
        self.pages = {"home": "Welcome."}

    def __call__(self, environ, start_response):
        name = environ["PATH_INFO"].strip("/") or "home"
        if name not in self.pages:
            start_response("404 Not Found", [("Content-Type", "text/plain")])
            return [b"no such page\n"]
        start_response("200 OK", [("Content-Type", "text/plain; charset=utf-8")])
        return [f"{self.title}: {self.pages[name]}\n".encode()]


def make_wiki(global_config, title="Wiki"):
    return Wiki(title)


application = loadapp("config:wiki.ini", relative_to=str(Path(__file__).parent))

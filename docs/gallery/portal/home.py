"""The page at the root: who is signed in, and the four applications."""

from pathlib import Path

from lamella.apps.router import Router

router = Router(templates=Path(__file__).parent / "templates")


@router.get("/")
def index(request):
    environ = request.environ
    return router.render(
        request,
        "home.html",
        user=environ["REMOTE_USER"],
        csrf=environ["lamella.csrf"],
        notes=environ["lamella.session"],
    )


@router.get("/favicon.ico")
def favicon(request):
    return None

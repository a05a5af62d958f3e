from pyramid.config import Configurator
from pyramid.httpexceptions import HTTPFound
from pyramid.session import SignedCookieSessionFactory

votes = {"tabs": 0, "spaces": 0}


def index(request):
    return {
        "votes": votes,
        "vote": request.route_url("vote", choice="tabs"),
        "yours": request.session.get("choice"),
        "user": request.remote_user,
    }


def vote(request):
    choice = request.matchdict["choice"]
    votes[choice] += 1
    request.session["choice"] = choice
    return HTTPFound(request.route_path("index"))


def main():
    with Configurator(session_factory=SignedCookieSessionFactory("the gallery's own key")) as config:
        config.add_route("index", "/")
        config.add_route("vote", "/vote/{choice}")
        config.add_view(index, route_name="index", renderer="json")
        config.add_view(vote, route_name="vote", request_method="POST")
        return config.make_wsgi_app()


application = main()

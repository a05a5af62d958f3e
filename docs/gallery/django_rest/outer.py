from rest_framework import authentication


class User:
    """Who signed in outside; no table of users is needed."""

    is_authenticated = True

    def __init__(self, identity):
        self.username = identity.user
        self.roles = identity.roles


class OuterUser(authentication.BaseAuthentication):
    def authenticate(self, request):
        identity = request.META.get("lamella.identity")
        return (User(identity), None) if identity else None

    def authenticate_header(self, request):
        return 'Basic realm="tickets"'  # without it, DRF turns a 401 into a 403

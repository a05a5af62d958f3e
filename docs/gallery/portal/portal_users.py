"""Who signed in at the portal is a user of Django; who has the role admin there may use the admin here."""

from django.contrib.auth.backends import RemoteUserBackend


class PortalUsers(RemoteUserBackend):
    def configure_user(self, request, user, created=True):
        user.is_staff = user.is_superuser = "admin" in request.META["lamella.identity"].roles
        user.save()
        return user

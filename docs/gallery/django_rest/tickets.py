from django.conf import settings

settings.configure(
    SECRET_KEY="the gallery's own key",
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    INSTALLED_APPS=["rest_framework"],
    REST_FRAMEWORK={
        "DEFAULT_AUTHENTICATION_CLASSES": ["outer.OuterUser"],
        "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAuthenticated"],
        "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
        "UNAUTHENTICATED_USER": None,
    },
)

import django  # noqa: E402

django.setup()

from django.core.wsgi import get_wsgi_application  # noqa: E402
from rest_framework import routers, serializers, viewsets  # noqa: E402
from rest_framework.response import Response  # noqa: E402

tickets = [{"id": 1, "title": "The lamp flickers", "by": "ada"}]


class TicketSerializer(serializers.Serializer):
    id = serializers.IntegerField(read_only=True)
    title = serializers.CharField(max_length=80)
    by = serializers.CharField(read_only=True)


class TicketViewSet(viewsets.ViewSet):
    def list(self, request):
        return Response(tickets)

    def retrieve(self, request, pk=None):
        return Response(tickets[int(pk) - 1])

    def create(self, request):
        serializer = TicketSerializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        tickets.append({"id": len(tickets) + 1, **serializer.validated_data, "by": request.user.username})
        return Response(tickets[-1], status=201)


router = routers.DefaultRouter()
router.register("tickets", TicketViewSet, basename="ticket")
urlpatterns = router.urls

application = get_wsgi_application()

"""What replicas in a cluster fetch from, below /pull/: for `deployments.stacks.fetch`, not for people.

In no contract: both ends are ours and are released together.
"""

from django.http import FileResponse, HttpResponse, HttpResponseRedirect
from django.urls import path, reverse
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.views import APIView

from controlplane.core.json import JSONRenderer
from controlplane.registry import downloads
from controlplane.registry.api import bodies
from deployments import pulls

app_name = "pull"


class _Machine(APIView):
    """Nobody is logged in here: a token of its own, or a signature, says what may be had."""

    authentication_classes = ()
    permission_classes = ()
    renderer_classes = (JSONRenderer, bodies.Bytes)


@extend_schema(exclude=True)
class Pull(_Machine):
    def get(self, request: Request, sha256: str) -> HttpResponse:
        """To the bytes' signed address."""
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        variant = pulls.granted(token.strip() if scheme.lower() == "bearer" else "", sha256)
        address = reverse("pull:content", args=[sha256])
        return HttpResponseRedirect(
            f"{address}?{pulls.signed(variant)}",
            headers={"Cache-Control": "no-store", "Referrer-Policy": "no-referrer"},
        )


@extend_schema(exclude=True)
class Content(_Machine):
    def get(self, request: Request, sha256: str) -> FileResponse:
        """The bytes, hashed before the first one is sent."""
        variant = pulls.opened(sha256, request.GET.get("signature", ""))
        answer = downloads.content(variant, filename=sha256, asked=request.headers.get("Range", ""))
        answer["Cache-Control"] = "private, no-store"
        return answer


urlpatterns = [
    path("<sha256:sha256>/", Pull.as_view(), name="pull"),
    path("<sha256:sha256>/content/", Content.as_view(), name="content"),
]

"""A verb without a form of its own, refused: the sentence that the API says, on the page it was asked from.

Refused: an error page. Whoever loses a race (the job has just ended) wants to see how things are now, and to send the
verb again is no use.
"""

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect

from controlplane.core.errors import SlipwayError


def back(request: HttpRequest, error: SlipwayError, to: str) -> HttpResponse:
    """Redirects to an address, or the name of one, and the page there says why nothing was done."""
    messages.error(request, f"{error.title} {error.detail}".strip())
    return redirect(to)

"""Serves the static files from the web process itself, without an event loop.

servestatic finds the files and knows the headers, ranges and encodings; its own middleware is a coroutine, and
with one of those in the chain Django starts an event loop and hands over between threads for *every* request
under WSGI: 6 ms of CPU each.
"""

from collections.abc import Callable
from functools import cache

from django.http import HttpRequest, HttpResponseBase
from servestatic.middleware import AsyncServeStaticFileResponse, ServeStaticMiddleware


async def _never(request: HttpRequest) -> HttpResponseBase:
    raise NotImplementedError


@cache
def _files() -> ServeStaticMiddleware:
    """Looked for once, however many handlers a process makes: Django's test client makes one each time."""
    return ServeStaticMiddleware(_never)


class StaticFiles:
    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self.get_response = get_response
        self.known = _files()

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        path = request.path_info
        file = self.known.find_file(path) if self.known.autorefresh else self.known.files.get(path)
        if file is None:
            return self.get_response(request)
        found = file.get_response(request.method or "GET", request.META)
        answer: HttpResponseBase = AsyncServeStaticFileResponse(found.file or (), status=int(found.status))
        del answer["Content-Type"]
        for name, value in found.headers:
            if value is not None:
                answer[name] = value
        return answer

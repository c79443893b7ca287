"""Whether this process lives and can serve, for supervisors and load balancers. Nobody has to log in.

The database is asked over a connection of its own with a deadline, so that a frozen one, a full pool or a lock
cannot make the answer wait.
"""

import psycopg
from django.contrib.auth.decorators import login_not_required
from django.db import connection
from django.http import HttpRequest, JsonResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

CONNECT_S = 2


def database_answers() -> bool:
    parameters = connection.get_connection_params()
    names = ("dbname", "user", "password", "host", "port")
    given = {name: parameters[name] for name in names if parameters.get(name)}
    try:
        with psycopg.connect(**given, connect_timeout=CONNECT_S, autocommit=True) as asked:
            return asked.execute("SELECT 1").fetchone() == (1,)
    except psycopg.Error:
        return False


def _answer(*, unready_status: int) -> JsonResponse:
    answers = database_answers()
    return JsonResponse(
        {"status": "ok" if answers else "degraded", "database": "ok" if answers else "unreachable"},
        status=200 if answers else unready_status,
        headers={} if answers or unready_status == 200 else {"Retry-After": "2"},
    )


@login_not_required
@never_cache
@require_safe
def healthz(request: HttpRequest) -> JsonResponse:
    """Alive: always 200, because a restart would not bring the database back."""
    return _answer(unready_status=200)


@login_not_required
@never_cache
@require_safe
def readyz(request: HttpRequest) -> JsonResponse:
    """Able to serve: 503 while the database does not answer."""
    return _answer(unready_status=503)

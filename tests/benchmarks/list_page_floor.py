"""The floor: the same page with the same access rules, without a framework. One token query, one page query.

A connection per thread, prepared statements, dictionaries by hand, orjson.
"""

import hashlib
import os
import threading
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import parse_qs

import orjson
import psycopg

LIMIT = 50
TOKEN = """
SELECT t.expiry, t.team_id, m.role FROM accounts_apitoken t
JOIN accounts_user u ON u.id = t.user_id AND u.is_active
JOIN accounts_membership m ON m.user_id = t.user_id AND m.team_id = t.team_id
WHERE t.token_key = %s AND t.digest = %s
"""
PAGE = """
SELECT v.id, m.name, v.number, v.format, v.source_sha256, v.source_bytes, v.source_filename, v.signature,
       v.summary, v.quarantined_reason, v.trusted_at, u.username, v.created_at
FROM registry_version v
JOIN registry_model m ON m.id = v.model_id
LEFT JOIN accounts_user u ON u.id = v.created_by_id
WHERE m.team_id = %s AND m.name = %s AND v.id < %s
ORDER BY v.id DESC LIMIT %s
"""
_local = threading.local()

type Start = Callable[[str, list[tuple[str, str]]], object]


def _connection() -> psycopg.Connection:
    found: psycopg.Connection | None = getattr(_local, "connection", None)
    if found is None:
        found = psycopg.connect(os.environ["DATABASE_URL"], autocommit=True, options="-c timezone=UTC")
        _local.connection = found
    return found


def application(environ: dict[str, Any], start_response: Start) -> Iterable[bytes]:
    name = environ["PATH_INFO"].split("/")[4]
    cursor = int(parse_qs(environ["QUERY_STRING"]).get("cursor", ["9223372036854775807"])[0])
    text = environ.get("HTTP_AUTHORIZATION", "").removeprefix("Bearer ")
    connection = _connection()
    token = connection.execute(
        TOKEN, [text[:15], hashlib.sha512(text.encode()).hexdigest()], prepare=True
    ).fetchone()
    if token is None:
        start_response("401 Unauthorized", [("Content-Type", "application/json")])
        return [b"{}"]
    rows = connection.execute(PAGE, [token[1], name, cursor, LIMIT + 1], prepare=True).fetchall()
    more = f"http://{environ['HTTP_HOST']}{environ['PATH_INFO']}?cursor={rows[LIMIT - 1][0]}&limit={LIMIT}"
    page = {
        "items": [_document(row) for row in rows[:LIMIT]],
        "next": more if len(rows) > LIMIT else None,
    }
    body = orjson.dumps(page)
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]


def _document(row: tuple[Any, ...]) -> dict[str, Any]:
    (
        _,
        model,
        number,
        kind,
        sha256,
        size,
        filename,
        signature,
        summary,
        quarantined,
        trusted,
        user,
        created,
    ) = row
    return {
        "model": model,
        "version": number,
        "format": kind,
        "sha256": sha256,
        "size_bytes": size,
        "filename": filename,
        "signature": signature,
        "summary": summary,
        "quarantined": quarantined or None,
        "trusted_at": trusted,
        "created_by": user,
        "created_at": created,
        "url": f"/api/v1/models/{model}/versions/{number}/",
        "page": f"/models/{model}/versions/{number}/",
    }

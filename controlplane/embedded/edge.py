"""The one address of the product: Envoy from a wheel, in front of web and live.

A thread of web waits for nobody's bytes: what is no upload comes to it whole, and uploads, which stream, are fewer at
once than its threads. Pages are compressed on the way. A try is repeated only when no connection could be made, because
only then is it certain that nothing was done. Elsewhere the platform's proxy or ingress takes this place.
"""

import http.client
import json
import socket
import time
from pathlib import Path
from typing import Any

from controlplane.core.errors import SlipwayError, TooLarge, Unavailable
from controlplane.core.limits import LARGEST_BODY_BYTES
from controlplane.embedded.home import Home, write_private
from controlplane.embedded.wheels import wheel_folder

type Json = dict[str, Any]

HEADERS_TIMEOUT = "10s"
REQUEST_TIMEOUT = "7200s"
"""How long a request may take to come, whatever it trickles: the largest upload at 300 kB/s."""
IDLE_CONNECTION_TIMEOUT = "75s"
WEB_IDLE_TIMEOUT = "180s"
"""Longer than the longest silence of an upload: the signature is read while the client waits."""
UPSTREAM_IDLE_TIMEOUT = "20s"
"""Shorter than the servers' own, so that no request meets a connection that is just being closed."""
BUFFER_BYTES = 256 * 1024
MAX_CONNECTIONS = 4096
UPLOADS_AT_ONCE = 6
UPLOADS = {
    "POST": r"/models/new/|/models/[^/]+/(versions|datasets)/new/|/api/v1/models/[^/]+/versions/",
    "PUT": r"/api/v1/models/[^/]+/(versions/upload|datasets/[^/]+)/",
}
"""What brings a file, by method: a pattern of whole paths."""
SMALLEST_COMPRESSED = 512
COMPRESSED = ["text/html", "text/css", "text/javascript", "application/javascript", "image/svg+xml"]
TYPE = "type.googleapis.com/"
HCM = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
BUFFER = "envoy.extensions.filters.http.buffer.v3.Buffer"
BUFFER_OF_A_ROUTE = "envoy.extensions.filters.http.buffer.v3.BufferPerRoute"
ROUTER = "envoy.extensions.filters.http.router.v3.Router"
COMPRESSOR = "envoy.extensions.filters.http.compressor.v3.Compressor"
GZIP = "envoy.extensions.compression.gzip.compressor.v3.Gzip"
DOWNSTREAM_LIMIT = "envoy.extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig"
PROTOCOL_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"

CLIENT = "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%"
FORWARDED = {
    "X-Forwarded-For": CLIENT,
    "X-Forwarded-Host": "%REQ(:AUTHORITY)%",
    "X-Forwarded-Proto": "%REQ(:SCHEME)%",
    "X-Envoy-External-Address": CLIENT,
}

NEVER_REACHED = "Nothing was done: the process is starting, or was stopped. Send the request again."
PERHAPS_DONE = "It ended while it had the request: look whether it was done before you send it again."
TOO_LARGE = TooLarge(
    "body_too_large", "The request is too large.", f"At most {LARGEST_BODY_BYTES:,} bytes are read."
)
TOO_MANY = Unavailable(
    "too_many_at_once",
    "Too many requests came at once.",
    f"Nothing was done. At most {UPLOADS_AT_ONCE} files are uploaded at a time: send it again when one has ended.",
    retry_after_s=10,
)


def _page(title: str, sentence: str, *, refresh: str = "") -> str:
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8>{refresh}"
        f"<title>{title}</title><h1>{title}</h1><p>{sentence}</p></html>"
    )


STARTING_PAGE = _page(
    "Slipway is starting",
    "The web process does not answer yet. This page asks again every two seconds.",
    refresh="<meta http-equiv=refresh content=2>",
)


def binary() -> Path:
    return wheel_folder("envoy") / "_bin" / "envoy"


def argv(home: Home, *, python: str) -> tuple[str, ...]:
    return (python, "-m", "controlplane.embedded.edge_process", str(home.root))


def envoy(home: Home) -> tuple[str, ...]:
    """Without --disable-hot-restart Envoy ends itself whenever the thread that started it does."""
    options = ("--disable-hot-restart", "--concurrency", "1", "--log-level", "warning", "--drain-time-s", "1")
    return (str(binary()), "-c", str(home.run / "edge.json"), *options)


def admin_socket(home: Home) -> Path:
    return home.sockets / "edge.sock"


def split(address: str) -> tuple[str, int]:
    """ "127.0.0.1:8400" or "[::1]:8400" as host and port. Raises ValueError."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or int(port) > 65535:
        raise ValueError(f"{address!r} is not HOST:PORT")
    return host.strip("[]"), int(port)


def prepare(home: Home, *, address: str, web: str, live: str) -> None:
    """Writes the configuration and removes the admin socket that a killed Envoy left."""
    admin_socket(home).unlink(missing_ok=True)
    write_private(
        home.run / "edge.json",
        json.dumps(config(address=address, web=web, live=live, admin=admin_socket(home)), indent=1),
    )


def config(*, address: str, web: str, live: str, admin: Path | None = None) -> Json:
    """Envoy's bootstrap document. Without `admin` nobody can ask the proxy anything."""
    asked = {"admin": {"address": {"pipe": {"path": str(admin), "mode": 0o600}}}} if admin else {}
    return asked | {
        "overload_manager": {
            "resource_monitors": [
                {
                    "name": "envoy.resource_monitors.global_downstream_max_connections",
                    "typed_config": {
                        "@type": TYPE + DOWNSTREAM_LIMIT,
                        "max_active_downstream_connections": MAX_CONNECTIONS,
                    },
                }
            ]
        },
        "static_resources": {
            "listeners": [_listener(address)],
            "clusters": [
                _cluster("web", web),
                _cluster("uploads", web, at_once=UPLOADS_AT_ONCE),
                _cluster("live", live),
            ],
        },
    }


def _listener(address: str) -> Json:
    return {
        "name": "edge",
        "address": _socket_address(address),
        "per_connection_buffer_limit_bytes": BUFFER_BYTES,
        "socket_options": [{"level": socket.SOL_SOCKET, "name": socket.SO_KEEPALIVE, "int_value": 1}],
        "filter_chains": [{"filters": [{"name": "http", "typed_config": _connection_manager()}]}],
    }


def _connection_manager() -> Json:
    return {
        "@type": TYPE + HCM,
        "stat_prefix": "edge",
        "server_name": "slipway",
        "use_remote_address": True,
        "skip_xff_append": True,
        "normalize_path": True,
        "request_headers_timeout": HEADERS_TIMEOUT,
        "request_timeout": REQUEST_TIMEOUT,
        "stream_idle_timeout": WEB_IDLE_TIMEOUT,
        "delayed_close_timeout": "1s",
        "common_http_protocol_options": {"idle_timeout": IDLE_CONNECTION_TIMEOUT},
        "http_filters": [
            {
                "name": "buffer",
                "typed_config": {"@type": TYPE + BUFFER, "max_request_bytes": LARGEST_BODY_BYTES},
            },
            _compressor(),
            {"name": "router", "typed_config": {"@type": TYPE + ROUTER}},
        ],
        "route_config": {
            "request_headers_to_remove": ["forwarded"],
            "request_headers_to_add": [
                {"header": {"key": name, "value": value}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}
                for name, value in FORWARDED.items()
            ],
            "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": _routes()}],
        },
        "local_reply_config": {"mappers": _replies()},
    }


def _compressor() -> Json:
    """Pages and what they are drawn with. Not the API: its entity tags name the bytes as they are; not streams.

    A page may be compressed although it repeats what it was asked for: its only secret, Django's CSRF token, is
    masked anew in each answer.
    """
    return {
        "name": "compressor",
        "typed_config": {
            "@type": TYPE + COMPRESSOR,
            "response_direction_config": {
                "common_config": {
                    "min_content_length": SMALLEST_COMPRESSED,
                    "content_type_matcher": [{"prefix": kind} for kind in COMPRESSED],
                }
            },
            "compressor_library": {"name": "gzip", "typed_config": {"@type": TYPE + GZIP}},
        },
    }


def _routes() -> list[Json]:
    """The first that matches. Uploads alone are not held back until they are whole."""
    live = {
        "match": {"prefix": "/live/"},
        "route": {"cluster": "live", "timeout": "0s", "idle_timeout": "0s"},
    }
    streams = {"buffer": {"@type": TYPE + BUFFER_OF_A_ROUTE, "disabled": True}}
    uploads = [
        _web_route(
            "uploads",
            {
                "safe_regex": {"regex": paths},
                "headers": [{"name": ":method", "string_match": {"exact": method}}],
            },
        )
        | {"typed_per_filter_config": streams}
        for method, paths in UPLOADS.items()
    ]
    return [live, *uploads, _web_route("web", {"prefix": "/"})]


def _web_route(cluster: str, match: Json) -> Json:
    retry = {
        "retry_on": "connect-failure",
        "num_retries": 3,
        "retry_back_off": {"base_interval": "0.1s", "max_interval": "0.5s"},
    }
    return {
        "match": match,
        "route": {
            "cluster": cluster,
            "timeout": "0s",
            "idle_timeout": WEB_IDLE_TIMEOUT,
            "retry_policy": retry,
        },
    }


def _cluster(name: str, address: str, *, at_once: int = 8192) -> Json:
    return {
        "name": name,
        "type": "STRICT_DNS" if split(address)[0].strip(".0123456789:") else "STATIC",
        "connect_timeout": "1s",
        "per_connection_buffer_limit_bytes": BUFFER_BYTES,
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": _socket_address(address)}}]}],
        },
        "circuit_breakers": {
            "thresholds": [
                {"max_connections": MAX_CONNECTIONS, "max_pending_requests": 1024, "max_requests": at_once}
            ]
        },
        "typed_extension_protocol_options": {
            PROTOCOL_OPTIONS: {
                "@type": TYPE + PROTOCOL_OPTIONS,
                "common_http_protocol_options": {"idle_timeout": UPSTREAM_IDLE_TIMEOUT},
                "explicit_http_config": {"http_protocol_options": {}},
            }
        },
    }


def _socket_address(address: str) -> Json:
    host, port = split(address)
    return {"socket_address": {"address": host, "port_value": port}}


def _status_is(status: int) -> Json:
    value = {"default_value": status, "runtime_key": "slipway_unused"}
    return {"status_code_filter": {"comparison": {"op": "EQ", "value": value}}}


def _replies() -> list[Json]:
    """The first that fits: for each case a page for who asks for one, then the problem document.

    UO: more requests at once than the cluster takes. UF, UH: no connection could be made.
    """
    too_many = {"response_flag_filter": {"flags": ["UO"]}}
    never_sent = {"response_flag_filter": {"flags": ["UF", "UH"]}}
    return [
        *_replies_as(too_many, TOO_MANY),
        *_replies_as(_status_is(413), TOO_LARGE),
        _reply(_asks_for_a_page(_status_is(503)), _html(STARTING_PAGE), retry_after_s=2),
        _reply(_both(_status_is(503), never_sent), _problem(_unavailable(NEVER_REACHED)), retry_after_s=2),
        _reply(_status_is(503), _problem(_unavailable(PERHAPS_DONE)), retry_after_s=2),
        _other_reply(),
    ]


def _replies_as(condition: Json, error: SlipwayError) -> tuple[Json, Json]:
    """As web itself would answer."""
    page = _html(_page(error.title, error.detail))
    return (
        _reply(_asks_for_a_page(condition), page, retry_after_s=error.retry_after_s),
        _reply(condition, _problem(_document(error)), retry_after_s=error.retry_after_s),
    )


def _asks_for_a_page(condition: Json) -> Json:
    return _both(
        condition,
        {"header_filter": {"header": {"name": "accept", "string_match": {"contains": "text/html"}}}},
    )


def _both(one: Json, other: Json) -> Json:
    return {"and_filter": {"filters": [one, other]}}


def _unavailable(detail: str) -> Json:
    return _document(Unavailable("web_unavailable", "The web process does not answer.", detail))


def _document(error: SlipwayError) -> Json:
    return error.problem() | {"instance": "%REQ(:PATH)%"}


def _html(page: str) -> Json:
    return {"text_format_source": {"inline_string": page}, "content_type": "text/html; charset=utf-8"}


def _other_reply() -> Json:
    problem = {
        "type": "/problems/edge/",
        "title": "The request did not reach the web process.",
        "status": "%RESPONSE_CODE%",
        "detail": "%LOCAL_REPLY_BODY%",
        "code": "edge",
    }
    anything = {"value": {"default_value": 400, "runtime_key": "slipway_unused"}, "op": "GE"}
    return _reply({"status_code_filter": {"comparison": anything}}, _problem(problem))


def _problem(document: Json) -> Json:
    return {"json_format": document, "content_type": "application/problem+json"}


def _reply(condition: Json, body: Json, *, retry_after_s: float | None = None) -> Json:
    headers = (
        [] if retry_after_s is None else [{"header": {"key": "Retry-After", "value": f"{retry_after_s:g}"}}]
    )
    return {"filter": condition, "body_format_override": body, "headers_to_add": headers}


class _AdminConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("edge", timeout=1)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(1)
        self.sock.connect(str(self._path))


def _admin(home: Home, method: str, target: str) -> str:
    """Raises OSError or http.client.HTTPException where Envoy does not answer."""
    connection = _AdminConnection(admin_socket(home))
    try:
        connection.request(method, target)
        return connection.getresponse().read().decode(errors="replace")
    finally:
        connection.close()


def under_way(home: Home) -> int:
    """How many requests are not answered yet, event streams aside. Raises OSError or http.client.HTTPException."""
    stats = _admin(home, "GET", "/stats?filter=^(http.edge.downstream|cluster.live.upstream)_rq_active$")
    streams, all_of_them = (int(line.rpartition(":")[2]) for line in sorted(stats.splitlines()))
    return all_of_them - streams


def drain(home: Home, *, within_s: float) -> None:
    """Takes no new connection, then waits until what was asked is answered, or time is up."""
    deadline = time.monotonic() + within_s
    try:
        _admin(home, "POST", "/drain_listeners")
        while time.monotonic() < deadline:
            time.sleep(0.05)  # what was just accepted may be on its way to web
            if not under_way(home):
                return
    except (OSError, ValueError, http.client.HTTPException):
        return


def answers(address: str) -> bool:
    """Whether requests to the edge reach web and live: any answers but Envoy's own 503."""
    host, port = split(address)
    connection = http.client.HTTPConnection(host, port, timeout=5)
    try:
        return all(_status(connection, path) != 503 for path in ("/", "/live/health"))
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _status(connection: http.client.HTTPConnection, path: str) -> int:
    connection.request("GET", path)
    with connection.getresponse() as response:
        response.read()
        return response.status

"""Envoy's configuration as values: routes in, JSON documents out. No I/O.

Decisions, each for a failure that was seen:
- `ignore_health_on_host_removal`: otherwise a host that is taken out of the endpoints keeps its traffic for as
  long as its health check still passes, and a drained replica loses requests.
- Only local-origin failures eject a host: a replica that answers 429 or 503 is busy, not broken.
- `reset` is retried: inference changes nothing, so a request that a dying replica had taken is asked again.
- The panic threshold is 1 %: with every health check failing (an overloaded machine) requests still go to the
  replicas that the node believes in, instead of being refused altogether.
- Health changes are not merged: by default a new replica waits up to a second for its first request.
- The least busy of a sample, not of all: a replica that has just died is the least busy one, so a scan of all
  would give it every retry again. The predicate has such a choice repeated until it falls on another replica;
  with two of them one sample in sixteen does, so it may be repeated often.
- Circuit breakers are out of the way (the default of 3 concurrent retries alone would lose requests).
- Idle connections to replicas close before Uvicorn's 5 s do, so no request meets a closing connection.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from deployments.targets.local.proxy import Route

_TYPES = "type.googleapis.com/envoy"
_UNBOUNDED = 1_000_000_000
LISTENER = "data"
ROUTES = "data"

type Json = dict[str, Any]


def bootstrap(folder: Path, *, admin_socket: Path) -> Json:
    """What Envoy is started with; everything else is read from files that may change."""
    return {
        "node": {"id": "slipway-data", "cluster": "slipway"},
        "admin": {"address": {"pipe": {"path": str(admin_socket), "mode": 0o600}}},
        "dynamic_resources": {
            "lds_config": _watched(folder / "lds" / "listeners.json"),
            "cds_config": _watched(folder / "cds" / "clusters.json"),
        },
    }


def listeners(folder: Path, *, host: str, port: int) -> Json:
    connections = {
        "@type": f"{_TYPES}.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "data",
        "rds": {"route_config_name": ROUTES, "config_source": _watched(folder / "rds" / "routes.json")},
        "http_filters": [
            {
                "name": "envoy.filters.http.router",
                "typed_config": {
                    "@type": f"{_TYPES}.extensions.filters.http.router.v3.Router",
                    "suppress_envoy_headers": True,
                },
            }
        ],
        "use_remote_address": True,
        "normalize_path": True,
        "merge_slashes": True,
        "path_with_escaped_slashes_action": "REJECT_REQUEST",
        "server_header_transformation": "PASS_THROUGH",
        "common_http_protocol_options": {"idle_timeout": "300s"},
        "request_headers_timeout": "10s",
        "request_timeout": "120s",
        "local_reply_config": {"mappers": _problems()},
    }
    listener = {
        "@type": f"{_TYPES}.config.listener.v3.Listener",
        "name": LISTENER,
        "address": {"socket_address": {"address": host, "port_value": port}},
        # With SO_REUSEPORT a second proxy could share the port unseen and take half of the requests.
        "enable_reuse_port": False,
        "filter_chains": [
            {
                "filters": [
                    {"name": "envoy.filters.network.http_connection_manager", "typed_config": connections}
                ]
            }
        ],
    }
    return _response([listener])


def routes(wanted: Sequence[Route]) -> Json:
    known = [
        {
            "match": {"prefix": f"{route.path}/"},
            "route": {
                "cluster": route.key,
                "prefix_rewrite": "/",
                "timeout": "300s",
                "retry_policy": {
                    "retry_on": "connect-failure,refused-stream,reset-before-request,reset",
                    "num_retries": 3,
                    "retry_back_off": {"base_interval": "0.005s", "max_interval": "0.1s"},
                    "retry_host_predicate": [
                        {
                            "name": "envoy.retry_host_predicates.previous_hosts",
                            "typed_config": {
                                "@type": f"{_TYPES}.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"
                            },
                        }
                    ],
                    "host_selection_retry_max_attempts": 256,
                },
            },
        }
        for route in sorted(wanted, key=lambda route: route.path or "")
        if route.path is not None
    ]
    unknown = {
        "match": {"prefix": "/"},
        "direct_response": {"status": 404, "body": {"inline_string": _NOT_FOUND}},
        "response_headers_to_add": [_header("content-type", "application/problem+json")],
    }
    return _response(
        [
            {
                "@type": f"{_TYPES}.config.route.v3.RouteConfiguration",
                "name": ROUTES,
                "virtual_hosts": [
                    {
                        "name": "data",
                        "domains": ["*"],
                        "routes": [*known, unknown],
                        # A request is kept up to this size so that it can be asked again.
                        "request_body_buffer_limit": 8 * 1024**2,
                    }
                ],
            }
        ]
    )


def clusters(folder: Path, keys: Sequence[str]) -> Json:
    return _response([_cluster(key, endpoints_file(folder, key)) for key in sorted(keys)])


def endpoints(route: Route) -> Json:
    hosts = [
        {"endpoint": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": port}}}}
        for port in sorted(route.ports)
    ]
    return _response(
        [
            {
                "@type": f"{_TYPES}.config.endpoint.v3.ClusterLoadAssignment",
                "cluster_name": route.key,
                "endpoints": [{"lb_endpoints": hosts}] if hosts else [],
            }
        ]
    )


def endpoints_file(folder: Path, key: str) -> Path:
    return folder / "eds" / key / "endpoints.json"


def listed_ports(clusters_page: Mapping[str, Any], key: str) -> frozenset[int]:
    """The ports that a running Envoy balances `key` over, from its admin page `/clusters?format=json`."""
    return frozenset(
        host["address"]["socket_address"]["port_value"]
        for cluster in clusters_page.get("cluster_statuses", ())
        if cluster["name"] == key
        for host in cluster.get("host_statuses", ())
    )


def _cluster(key: str, endpoints_path: Path) -> Json:
    return {
        "@type": f"{_TYPES}.config.cluster.v3.Cluster",
        "name": key,
        "type": "EDS",
        "eds_cluster_config": {"eds_config": _watched(endpoints_path)},
        "connect_timeout": "1s",
        "ignore_health_on_host_removal": True,
        "common_lb_config": {"healthy_panic_threshold": {"value": 1}, "update_merge_window": "0s"},
        "load_balancing_policy": {
            "policies": [
                {
                    "typed_extension_config": {
                        "name": "envoy.load_balancing_policies.least_request",
                        "typed_config": {
                            "@type": f"{_TYPES}.extensions.load_balancing_policies.least_request.v3.LeastRequest",
                            # Of two replicas the busier one gets a request in sixteen.
                            "choice_count": 4,
                        },
                    }
                }
            ]
        },
        "health_checks": [
            {
                "timeout": "2s",
                "interval": "1s",
                "no_traffic_interval": "1s",
                "unhealthy_interval": "0.25s",
                "unhealthy_threshold": 2,
                "healthy_threshold": 1,
                "http_health_check": {"path": "/v2/health/ready"},
            }
        ],
        "outlier_detection": {
            "split_external_local_origin_errors": True,
            "consecutive_local_origin_failure": 3,
            "enforcing_consecutive_local_origin_failure": 100,
            "enforcing_local_origin_success_rate": 0,
            "enforcing_consecutive_5xx": 0,
            "enforcing_consecutive_gateway_failure": 0,
            "enforcing_success_rate": 0,
            "interval": "1s",
            "base_ejection_time": "1s",
            "max_ejection_time": "10s",
            "max_ejection_percent": 100,
        },
        "circuit_breakers": {
            "thresholds": [
                {
                    "max_connections": _UNBOUNDED,
                    "max_pending_requests": _UNBOUNDED,
                    "max_requests": _UNBOUNDED,
                    "max_retries": _UNBOUNDED,
                }
            ]
        },
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": f"{_TYPES}.extensions.upstreams.http.v3.HttpProtocolOptions",
                "common_http_protocol_options": {"idle_timeout": "3s"},
                "explicit_http_config": {"http_protocol_options": {}},
            }
        },
    }


_NOT_FOUND = (
    '{"type":"/problems/no_such_endpoint/","title":"There is no endpoint at this address.","status":404,'
    '"detail":"Addresses here look like /team/deployment/v2/models/model/infer.","code":"no_such_endpoint"}'
)


def _problems() -> list[Json]:
    return [
        _mapper(
            ["UH", "NC"],
            status=503,
            code="no_replica_ready",
            title="No replica of this deployment is ready.",
            detail="It is starting, scaled to zero or failing. Ask again after the time in Retry-After.",
        ),
        _mapper(
            ["UT"],
            status=504,
            code="replica_timeout",
            title="The replica did not answer in time.",
            detail="The request ran for 300 s without an answer.",
        ),
        _mapper(
            ["UF", "UC", "UR", "LR", "URX", "UO"],
            status=503,
            code="replica_failed",
            title="No replica could finish this request.",
            detail="Every replica that was tried broke off the connection. Ask again.",
        ),
    ]


def _mapper(flags: list[str], *, status: int, code: str, title: str, detail: str) -> Json:
    body = {
        "type": f"/problems/{code}/",
        "title": title,
        "status": status,
        "detail": detail,
        "code": code,
        "instance": "%REQ(:PATH)%",
    }
    return {
        "filter": {"response_flag_filter": {"flags": flags}},
        "status_code": status,
        "headers_to_add": [_header("retry-after", "1")] if status == 503 else [],
        "body_format_override": {"json_format": body, "content_type": "application/problem+json"},
    }


def _header(name: str, value: str) -> Json:
    return {"header": {"key": name, "value": value}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}


def _watched(path: Path) -> Json:
    source = {"path": str(path), "watched_directory": {"path": str(path.parent)}}
    return {"resource_api_version": "V3", "path_config_source": source}


def _response(resources: list[Json]) -> Json:
    return {"resources": resources}

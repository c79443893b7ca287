"""docker-compose.yml, `up` and the process table say the same. No container engine runs here: not exercised."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from django.conf import settings

from controlplane.embedded import compose
from controlplane.embedded.home import Home
from controlplane.embedded.processes import Site, Tier, preparation, table
from deployments.targets.local.layout import NodeSettings

ROOT = settings.BASE_DIR


def test_the_committed_files_are_what_the_table_makes() -> None:
    assert (ROOT / "docker-compose.yml").read_text() == compose.text()
    assert json.loads((ROOT / "install" / "edge.json").read_text()) == compose.edge_config()


@pytest.fixture
def services() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    return found


def test_every_process_that_up_runs_is_a_service_with_the_same_command(services: dict[str, Any]) -> None:
    here = Site(
        python="python",
        web="0.0.0.0:8000",
        live="0.0.0.0:8001",
        home=Home(root=Path("/var/lib/slipway")),
        embedded_postgres=True,
        embedded_valkey=True,
        metrics=f"0.0.0.0:{compose.METRICS_PORT}",
        gpus=compose.FIRST_GPU,
    )
    rows = [*table(here), preparation(here, admin_password="secret")]
    own = [row for row in rows if row.tier is not Tier.SERVERS and row.name != "edge"]
    assert {row.name: list(row.argv) for row in own} == {
        name: service["command"] for name, service in services.items() if "build" in service
    }
    for row in own:
        assert set(row.reads) | set(row.environment) <= set(services[row.name]["environment"])
    assert set(services) - {row.name for row in own} == {"postgres", "redis", "edge"}


def test_the_node_serves_beyond_its_container_under_the_address_that_it_tells(
    services: dict[str, Any],
) -> None:
    node = NodeSettings.from_environment(services["node"]["environment"])
    assert node.data_host == "0.0.0.0"
    assert services["node"]["ports"] == [f"{node.address('').removeprefix('http://')}:{node.data_port}"]


def test_a_gpu_s_worker_is_started_on_request_and_has_its_gpu_to_itself(services: dict[str, Any]) -> None:
    assert {name for name, service in services.items() if service.get("profiles") == ["gpu"]} == {
        "worker-gpu-1"
    }
    asked = compose.document(["1", "MIG-8f3b"])["services"]
    for name, gpu in (("worker-gpu-1", "1"), ("worker-gpu-2", "MIG-8f3b")):
        assert asked[name]["profiles"] == ["gpu"]
        (device,) = asked[name]["deploy"]["resources"]["reservations"]["devices"]
        assert device == {
            "driver": "nvidia",
            "device_ids": [gpu],
            "capabilities": ["gpu", "compute", "utility"],
        }
        assert asked[name]["environment"]["CUDA_VISIBLE_DEVICES"] == "0"
    assert {name for name in asked if name.startswith("worker-gpu")} == {"worker-gpu-1", "worker-gpu-2"}


def test_the_metrics_api_is_started_on_request_and_reads_its_certificates_from_the_host(
    services: dict[str, Any],
) -> None:
    service = services["metrics-api"]
    assert service["profiles"] == ["cluster"]
    assert [name for name, one in services.items() if one.get("profiles") == ["cluster"]] == ["metrics-api"]
    folder = service["volumes"][0].split(":")[-2]
    files = {
        service["environment"][f"SLIPWAY_METRICS_{one}"].removeprefix(f"{folder}/")
        for one in ("CERT", "KEY", "CLIENT_CA")
    }
    assert files == {"tls.crt", "tls.key", "client-ca.crt"}
    port = service["environment"]["SLIPWAY_METRICS_ADDRESS"].rpartition(":")[2]
    assert service["ports"] == [f"{port}:{port}"]


def test_what_asks_replicas_and_endpoints_by_their_address_shares_the_network_of_the_node(
    services: dict[str, Any],
) -> None:
    beside = {name for name, service in services.items() if service.get("network_mode") == "service:node"}
    assert beside == {"collector", "load"}


def test_the_preparation_makes_the_first_person_with_the_password_of_the_env_file(
    services: dict[str, Any],
) -> None:
    assert services["prepare"]["command"][1:] == ["manage.py", "prepare"]
    assert services["prepare"]["environment"]["SLIPWAY_ADMIN_PASSWORD"] == "${SLIPWAY_ADMIN_PASSWORD:?}"
    needed = set(re.findall(r"\$\{(\w+):\?\}", compose.text().removeprefix(compose.HEADER)))
    assert needed == set(re.findall(r"\w+_(?:KEY|TOKEN|PASSWORD)", compose.HEADER))


def test_no_service_is_given_a_secret_it_does_not_read(services: dict[str, Any]) -> None:
    assert not {"DATABASE_URL", "REDIS_URL", "SLIPWAY_SECRET_KEY"} & set(services["node"]["environment"])


def test_every_image_has_a_recipe_that_installs_its_lock_by_hash(services: dict[str, Any]) -> None:
    built = {service["build"]["dockerfile"] for service in services.values() if "build" in service}
    for path in built:
        recipe = (ROOT / path).read_text()
        lock = next(line.split()[1] for line in recipe.splitlines() if line.startswith("COPY requirements/"))
        assert (ROOT / lock).is_file()
        assert "--require-hashes" in recipe
        assert "USER slipway" in recipe

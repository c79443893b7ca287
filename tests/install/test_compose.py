"""docker-compose.yml, `up` and the process table say the same. No container engine runs here: not exercised."""

import json

import yaml
from django.conf import settings

from controlplane.embedded import compose
from controlplane.embedded.processes import CONTAINERS, Site, table

ROOT = settings.BASE_DIR


def test_the_committed_files_are_what_the_table_makes() -> None:
    assert (ROOT / "docker-compose.yml").read_text() == compose.text()
    assert json.loads((ROOT / "install" / "edge.json").read_text()) == compose.edge_config()


def test_every_process_of_the_table_is_a_service_and_runs_the_same_command_as_up() -> None:
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    on_this_machine = {
        row.name: row for row in table(Site(python="python", web="0.0.0.0:8000", live="0.0.0.0:8001"))
    }
    for row in table(CONTAINERS):
        assert services[row.name]["command"] == list(row.argv) == list(on_this_machine[row.name].argv)
        assert set(row.reads) <= set(services[row.name]["environment"])
    beside = set(services) - {row.name for row in table(CONTAINERS)}
    assert beside == {"postgres", "redis", "edge", "prepare"}


def test_no_service_is_given_a_secret_it_does_not_read() -> None:
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    assert not {"DATABASE_URL", "REDIS_URL", "SLIPWAY_SECRET_KEY"} & set(services["node"]["environment"])


def test_every_image_has_a_recipe_that_installs_its_lock_by_hash() -> None:
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    built = {service["build"]["dockerfile"] for service in services.values() if "build" in service}
    for path in built:
        recipe = (ROOT / path).read_text()
        lock = next(line.split()[1] for line in recipe.splitlines() if line.startswith("COPY requirements/"))
        assert (ROOT / lock).is_file()
        assert "--require-hashes" in recipe
        assert "USER slipway" in recipe

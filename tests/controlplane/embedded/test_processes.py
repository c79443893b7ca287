"""The process table: what other rooms and files are made from."""

import importlib.util
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from controlplane.embedded.home import Home
from controlplane.embedded.journal import LINE_LIMIT_BYTES, LogFile
from controlplane.embedded.processes import CONTAINERS, SEES, Kind, Process, Site, Tier, copies, table
from controlplane.embedded.spawn import IMPORT_TOKENS, INSTALLATION, KEDA_TOKEN, child_environment
from controlplane.embedded.supervisor import describe
from controlplane.settings.environment import REPOSITORY
from deployments.targets.local.layout import NodeSettings

SITE = Site(
    python="python",
    web="127.0.0.1:1",
    live="127.0.0.1:2",
    home=Home(root=Path("/home")),
    embedded_postgres=True,
    embedded_valkey=True,
)
SECRETS = {"DATABASE_URL", "REDIS_URL", "SLIPWAY_SECRET_KEY"}


def names(rows: tuple[Process, ...]) -> list[str]:
    return [row.name for row in rows]


def row(name: str) -> Process:
    return next(row for row in table(SITE) if row.name == name)


def test_the_table_has_every_process_of_the_design() -> None:
    embedded = ["postgres", "valkey", "edge"]
    own = [
        *("node", "dispatcher", "collector", "load", "importer"),
        *("worker-optimize", "worker-rollouts", "live", "web"),
    ]
    assert sorted(names(table(SITE))) == sorted(embedded + own)
    assert sorted(names(table(CONTAINERS))) == sorted([*own, "metrics-api"])
    assert sorted(names(table(replace(SITE, metrics="127.0.0.1:8443")))) == sorted(
        [*embedded, *own, "metrics-api"]
    )


def test_every_gpu_has_a_worker_that_sees_no_other_and_the_cpu_s_sees_none() -> None:
    seen = ("GPU-b9b1a4ee", "MIG-8f3b6a11", "MIG-52a9b0c7")
    workers = [each for each in table(replace(SITE, gpus=seen)) if each.name.startswith("worker-")]
    assert [(each.name, each.argv[9:13], each.environment.get(SEES)) for each in workers] == [
        ("worker-optimize", ("-Q", "optimize.cpu", "-c", "1"), ""),
        *(
            (f"worker-gpu-{number}", ("-Q", "optimize.gpu", "-c", "1"), gpu)
            for number, gpu in enumerate(seen, start=1)
        ),
        ("worker-rollouts", ("-Q", "rollouts", "-c", "2"), ""),
    ]
    assert SEES not in row("worker-optimize").environment


def test_what_a_process_needs_starts_before_it() -> None:
    seen: set[str] = set()
    for each in table(SITE):
        assert set(each.needs) <= seen
        seen.add(each.name)
    assert [each.tier for each in table(SITE)] == sorted(each.tier for each in table(SITE))


def test_only_our_python_processes_read_secrets_and_the_node_reads_none() -> None:
    assert {each.name for each in table(SITE) if SECRETS & set(each.reads)} == {
        each.name for each in table(SITE) if each.kind is Kind.PYTHON
    } - {"node"}


def test_a_child_inherits_no_variable_of_the_installation_that_it_does_not_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in INSTALLATION:
        monkeypatch.setenv(name, "inherited")
    monkeypatch.setenv("SLIPWAY_MAX_UPLOAD_BYTES", "7")
    environment = child_environment(
        home=Path("/h"), values=dict.fromkeys(INSTALLATION, "ours"), reads=["SLIPWAY_HOME"]
    )
    assert {name: environment.get(name) for name in INSTALLATION} == dict.fromkeys(INSTALLATION) | {
        "SLIPWAY_HOME": "ours"
    }
    assert environment["SLIPWAY_MAX_UPLOAD_BYTES"] == "7"


def test_only_the_importer_has_the_tokens_of_registries_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in IMPORT_TOKENS:
        monkeypatch.setenv(name, "of the operator")
    has = {
        each.name
        for each in table(SITE)
        if {*IMPORT_TOKENS} & {*child_environment(home=Path("/h"), values={}, reads=each.reads)}
    }
    assert has == {"importer"}


def test_the_metrics_api_has_keda_s_token_alone_and_no_way_to_the_database(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(KEDA_TOKEN, "of the operator")
    rows = table(replace(SITE, metrics="127.0.0.1:8443"))
    given = {
        each.name: child_environment(
            home=Path("/h"), values=dict.fromkeys(INSTALLATION, "ours"), reads=each.reads
        )
        for each in rows
    }
    assert {name for name, environment in given.items() if KEDA_TOKEN in environment} == {"metrics-api"}
    assert {"DATABASE_URL", "SLIPWAY_SECRET_KEY", "SLIPWAY_NODE_TOKEN"} & set(given["metrics-api"]) == set()


def test_stopping_every_tier_in_turn_fits_the_limit_of_ten_seconds() -> None:
    typical = [
        max(each.grace_s for each in table(SITE) if each.tier is tier) for tier in (Tier.WORK, Tier.EDGE)
    ]
    assert sum(typical) <= 9


def test_the_modules_that_the_table_starts_exist() -> None:
    for each in table(SITE):
        if each.argv[1:2] == ("-m",):
            assert importlib.util.find_spec(each.argv[2]) is not None, each.argv


def test_the_node_finds_room_for_its_sockets_in_a_home_of_any_length() -> None:
    for home in (Home(root=Path("/" + "h" * length)) for length in range(70, 120)):
        NodeSettings.from_environment(
            {"SLIPWAY_HOME": str(home.root), "SLIPWAY_NODE_URL": f"unix:{home.sockets}/node.sock"}
        )


@pytest.mark.parametrize("module", ["edge_process", "runtime"])
def test_what_starts_without_the_installation_s_variables_reads_no_settings(module: str) -> None:
    """They would be those of another home, whose folders they make."""
    code = f"import sys, controlplane.embedded.{module}; sys.exit('controlplane.settings' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=False).returncode == 0


def test_copies_get_names_of_their_own() -> None:
    assert names(copies([replace(row("dispatcher"), instances=2), row("web")])) == [
        "dispatcher-1",
        "dispatcher-2",
        "web",
    ]


@pytest.mark.parametrize(("code", "words"), [(0, "exit 0"), (3, "exit 3"), (-9, "signal SIGKILL")])
def test_an_exit_code_is_said_in_words(code: int, words: str) -> None:
    assert describe(code) == words


def test_a_log_file_keeps_the_newest_lines_within_its_limit(tmp_path: Path) -> None:
    limit = 10_000
    log = LogFile(tmp_path / "web.log", limit_bytes=limit)
    for number in range(2000):
        log.write(f"line {number:06}".encode())
    log.close()
    older, newer = (tmp_path / "web.log.1").read_text(), (tmp_path / "web.log").read_text()
    assert len(older) + len(newer) <= 2 * (limit + LINE_LIMIT_BYTES)
    numbers = [int(found) for found in re.findall(r"line (\d+)", older + newer)]
    assert numbers == list(range(numbers[0], 2000))

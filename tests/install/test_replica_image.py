"""The replica's image holds all that it runs, and nothing of the control plane. No container engine runs here: its
recipe is followed into a folder, beside the packages of its lock alone."""

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from django.conf import settings

from deployments.stacks.fastapi.stack import STACK
from deployments.targets.kubernetes.render.place import FETCH_IMAGE
from deployments.targets.kubernetes.render.pods import FETCH_COMMAND

ROOT = settings.BASE_DIR
RECIPE = (ROOT / "install" / "replica.Dockerfile").read_text()


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`srv` as the COPY lines make it; `site` with links to what the lock lists."""
    made = tmp_path_factory.mktemp("image")
    for line in re.findall(r"^COPY (.*)$", RECIPE.replace("\\\n", ""), re.MULTILINE):
        *sources, to = line.split()
        for source in sources:
            end = made / "srv" / to
            if (ROOT / source).is_dir():
                shutil.copytree(ROOT / source, end, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                end.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / source, end)
    (made / "site").mkdir()
    lock = (ROOT / "requirements" / "serve.lock").read_text()
    for name in re.findall(r"^([a-z0-9][a-z0-9._-]*)==", lock, re.MULTILINE):
        distribution = importlib.metadata.distribution(name)
        for top in {file.parts[0] for file in distribution.files or ()} - {"..", "__pycache__"}:
            (made / "site" / top).symlink_to(Path(str(distribution.locate_file(top))))
    return made


def run(image: Path, *arguments: str, site: bool = True) -> "subprocess.CompletedProcess[str]":
    paths = [image / "srv", *([image / "site"] if site else [])]
    return subprocess.run(
        [sys.executable, "-S", *arguments],
        cwd=image,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(map(str, paths))},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_the_replica_runs_on_its_lock_alone(image: Path) -> None:
    """As far as its configuration, which is missing; and to the runtime that it opens models with."""
    done = run(image, *STACK.container.command[1:])
    assert (done.returncode, "Give the path of one configuration file." in done.stderr) == (2, True), (
        done.stderr
    )
    opened = run(image, "-c", "import onnxruntime\nfrom deployments.stacks.fastapi.runtimes import OPENERS")
    assert opened.returncode == 0, opened.stderr


def test_the_fetcher_runs_on_the_standard_library_alone(image: Path) -> None:
    done = run(image, *FETCH_COMMAND[1:], site=False)
    assert (done.returncode, "Give the address to fetch from" in done.stderr) == (2, True), done.stderr


def test_what_is_not_in_the_image_is_missed(image: Path) -> None:
    """Else the two tests above would hold for any recipe."""
    for name in ("django", "kubernetes", "celery", "psycopg", "deployments.models", "controlplane.accounts"):
        assert f"No module named '{name}'" in run(image, "-c", f"import {name}").stderr


def test_it_runs_as_the_person_that_pods_run_as_and_installs_by_hash() -> None:
    assert f"useradd --uid {STACK.container.uid} " in RECIPE
    assert RECIPE.rindex("USER slipway") > RECIPE.rindex("RUN ")
    assert "--require-hashes" in RECIPE
    assert STACK.container.image == FETCH_IMAGE
    command = re.findall(r"^CMD \[(.*)\]$", RECIPE, re.MULTILINE)[0].replace('"', "").split(", ")
    assert command == [*STACK.container.command, "/etc/slipway/config.json"]

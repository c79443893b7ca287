"""What a serving stack tells the rest of the product, so that nobody else needs to know its name.

Pages, pre-flight, targets and the collector read these values; none of them has an `if stack == ...`.
Refused: a base class with half of the behaviour. A stack is any object that has these attributes, and the
contract suite in `tests/deployments/stacks/test_contract.py` runs on every row of the table.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from deployments.domain.vocabulary import Source, Word

if TYPE_CHECKING:
    from pydantic import BaseModel

    from deployments.domain.workload import Workload


class MissingToolchain(LookupError):
    """An environment of its own, which the stack needs for this format, is not on this machine."""

    def __init__(self, key: str) -> None:
        super().__init__(f"the toolchain {key} is not installed (make toolchains TOOLCHAINS={key})")
        self.key = key


class NotHere(LookupError):
    """The stack runs in containers only."""

    def __init__(self, *, label: str, image: str) -> None:
        super().__init__(f"the stack {label} runs in containers only")
        self.label, self.image = label, image


class Support(StrEnum):
    """How alive the stack's own project is."""

    ACTIVE = "active"
    MAINTENANCE = "maintenance"
    END_OF_LIFE = "end_of_life"


@dataclass(frozen=True, kw_only=True)
class SupportStatus:
    """`successor` is the key or name of what to move to; it is set for every stack that is not active."""

    state: Support
    successor: str | None = None
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Probe:
    """An HTTP GET that answers 200 or does not; `port` names an entry of `Container.ports`."""

    path: str
    port: str = "http"


@dataclass(frozen=True, kw_only=True)
class Container:
    """How the stack runs where containers do. `command` ends where the placement's arguments are appended; `uid` is
    the user that the image was made for."""

    image: str
    command: tuple[str, ...]
    ports: Mapping[str, int]
    live: Probe
    ready: Probe
    metrics: Probe
    uid: int = 1000


@dataclass(frozen=True, kw_only=True)
class Placement:
    """Where a replica in a container finds what it needs. All paths are absolute.

    `files` (path to text) are mounted read-only, the variant's bytes lie at `model_path`, and `arguments` end the
    container's command.
    """

    files: Mapping[str, str]
    model_path: str
    arguments: tuple[str, ...]


class Stack(Protocol):
    """One serving stack. All attributes are plain values: reading them imports nothing heavy."""

    @property
    def key(self) -> str: ...

    @property
    def label(self) -> str: ...

    @property
    def support(self) -> SupportStatus: ...

    @property
    def formats(self) -> tuple[str, ...]:
        """Artifact formats it loads, best first (`onnx`, ...)."""

    @property
    def gpu_formats(self) -> tuple[str, ...]:
        """Those of its formats that it loads on a GPU only."""

    @property
    def engines(self) -> tuple[str, ...]:
        """The products whose engines it loads, as an engine's own label says who built it."""

    @property
    def runs_here(self) -> bool:
        """Whether a target that starts processes can run it; else it runs in containers only."""

    @property
    def protocol(self) -> str:
        """The request protocol that clients speak to it, in words."""

    @property
    def ceiling(self) -> str:
        """One sentence: what the stack will not do, however it is tuned."""

    @property
    def parameters(self) -> "type[BaseModel]":
        """The schema from which the form, the API schema and the validation come."""

    @property
    def batching_knobs(self) -> tuple[str, ...]:
        """The fields of `parameters` that shape batches."""

    @property
    def container(self) -> Container: ...

    @property
    def metrics(self) -> Mapping[Word, str | Source]:
        """The words it speaks, and the name of each on its metrics page; a Source where the units differ."""

    def start_command(
        self, config_path: Path, *, artifact_format: str, toolchains: Path
    ) -> tuple[str, ...] | None:
        """The argv that starts one replica on this machine, or None where the stack cannot run here: never, or
        because packages are missing.

        `toolchains` is the folder of the environments of their own, one of which a format may need. Raises
        MissingToolchain where it is not there.

        The process is started in the folder that holds this package, and reads everything it needs from
        the file at `config_path`.
        """

    def placement(self, workload: "Workload", *, deployment: str) -> Placement:
        """What a container of this revision is given; `deployment` is the key that its metrics carry."""

    def conformance(self, page: str) -> frozenset[Word]:
        """The words that `page`, scraped from a running replica, really speaks.

        Raises ValueError for a page that is not in the Prometheus text format.
        """

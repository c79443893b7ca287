"""Which formats can be deployed. The app above the registry that has the stacks says so, without being imported."""

from collections.abc import Callable, Collection

from controlplane.registry import formats

type Served = Callable[[], Collection[str]]
type Elsewhere = Callable[[str], str]

_SERVED: list[Served] = []
_ELSEWHERE: list[Elsewhere] = []


def register(served: Served, only_elsewhere: Elsewhere) -> None:
    """`served()` answers the formats that a stack of its app serves, in the order in which they are told;
    `only_elsewhere(format)` who serves one that cannot be served on this machine, and where, as a clause."""
    if served not in _SERVED:
        _SERVED.append(served)
        _ELSEWHERE.append(only_elsewhere)


def only_elsewhere(format: str) -> str:
    """“Triton serves it, on a Kubernetes cluster with a GPU”; empty for what this machine serves, and what nothing
    does."""
    return next((said for clause in _ELSEWHERE if (said := clause(format))), "")


def why_not(format: str) -> str:
    """Why what has the format cannot be deployed, and what can instead; empty where it can."""
    found = [key for served in _SERVED for key in served()]
    if format in found:
        return ""
    others = f"Choose a variant that is {' or '.join(map(formats.label, found))}."
    todo = formats.EXPORT_FIRST if format in formats.MUST_BE_EXPORTED else others
    return f"No stack here serves a {formats.label(format)}. {todo}"

"""Hugging Face, and mirrors that speak its API: two routes of it.

A branch or tag is pinned to its commit by the first answer, and every file is asked for at that commit.
"""

import re
from urllib.parse import quote

from controlplane.core.errors import Unprocessable
from controlplane.registry.sources.values import Listing, Reference, RemoteFile, invalid
from controlplane.registry.sources.web import Web

KEY, PREFIX = "huggingface", "hf:"
_PART = r"[A-Za-z0-9_][A-Za-z0-9._-]{0,95}"
_REFERENCE = re.compile(
    rf"hf:(?P<model>{_PART}(?:/{_PART})?)(?:@(?P<revision>{_PART})(?:/(?P<path>[^/?#\\]+(?:/[^/?#\\]+)*))?)?"
)
_COMMIT = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


def parse(text: str) -> Reference:
    """`hf:organization/name`, with `@revision` and then the path of one file. Raises InvalidInput."""
    found = _REFERENCE.fullmatch(text)
    if found is None or any(part in {".", ".."} for part in re.split("[/@]", text)) or ".." in found["model"]:
        raise invalid("“hf:” is followed by organization/name, and perhaps @revision and /path/of/a.onnx.")
    return Reference(
        source=KEY,
        model=found["model"],
        revision=found["revision"] or "main",
        path=found["path"] or "",
    )


def listing(web: Web, reference: Reference) -> Listing:
    """One request. Raises as `Web` does."""
    found = web.document(
        f"/api/models/{reference.model}/revision/{quote(reference.revision, safe='')}", blobs="true"
    )
    commit = found.get("sha")
    siblings = found.get("siblings")
    if not isinstance(commit, str) or _COMMIT.fullmatch(commit) is None or not isinstance(siblings, list):
        raise Unprocessable(
            "source_unreadable",
            f"The answer of {web.remote.name} cannot be used.",
            f"It names no commit or no files. An operator should look at {web.remote.settings[0]}.",
        )
    files = tuple(_file(reference.model, commit, row) for row in siblings if isinstance(row, dict))
    return Listing(revision=commit, files=files, facts={"repository": reference.model, "commit": commit})


def _file(model: str, commit: str, row: dict[str, object]) -> RemoteFile:
    path, size, large = str(row.get("rfilename")), row.get("size"), row.get("lfs")
    digest = large.get("sha256") if isinstance(large, dict) else None
    return RemoteFile(
        path=path,
        address=f"/{model}/resolve/{commit}/{quote(path)}",
        size_bytes=size if type(size) is int and size >= 0 else None,
        sha256=digest if isinstance(digest, str) and _SHA256.fullmatch(digest) else None,
    )

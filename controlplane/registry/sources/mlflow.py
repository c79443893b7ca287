"""MLflow's model registry: an alias is pinned to its version, and files come through the tracking server.

Only a server that hands artifacts out itself (`--serve-artifacts`, MLflow's default) can be read. Refused: reading the
buckets and folders behind it, for which Slipway would need keys of its own.
"""

import re
from collections.abc import Iterator
from urllib.parse import quote, unquote, urlsplit

from controlplane.core.errors import Unprocessable
from controlplane.registry.sources.values import Listing, Reference, RemoteFile, invalid
from controlplane.registry.sources.web import Web

KEY, PREFIX = "mlflow", "models:"
MAX_FOLDERS = 20
_API, _ARTIFACTS = "/api/2.0/mlflow", "/api/2.0/mlflow-artifacts/artifacts"
_REFERENCE = re.compile(
    r"models:/(?P<model>[^/:@\\]{1,200})(?:/(?P<version>[0-9]{1,9})|@(?P<alias>[A-Za-z][A-Za-z0-9._-]{0,199}))"
    r"(?:/(?P<path>[^/?#\\]+(?:/[^/?#\\]+)*))?"
)


def parse(text: str) -> Reference:
    """`models:/name/version` or `models:/name@alias`, and then the path of one file. Raises InvalidInput."""
    found = _REFERENCE.fullmatch(text)
    if found is None or {".", ".."} & set(text.split("/")):
        raise invalid("“models:/” is followed by name/version, with the version's number, or name@alias.")
    revision = found["version"] or f"@{found['alias']}"
    return Reference(source=KEY, model=found["model"], revision=revision, path=found["path"] or "")


def listing(web: Web, reference: Reference) -> Listing:
    """Two or three requests, and one for each folder. Raises as `Web` does, and Unprocessable for what the tracking
    server does not hand out."""
    version = reference.revision
    if version.startswith("@"):
        version = _version_of(web, reference.model, version.removeprefix("@"))
    asked = {"name": reference.model, "version": version}
    row = web.document(f"{_API}/model-versions/get", **asked).get("model_version")
    uri = web.document(f"{_API}/model-versions/get-download-uri", **asked).get("artifact_uri")
    facts = {"name": reference.model, "version": version, "artifact_uri": str(uri)[:500]}
    if isinstance(row, dict) and row.get("run_id"):
        facts["run"] = str(row["run_id"])[:100]
    return Listing(revision=version, files=tuple(_files(web, _root(web, uri))), facts=facts)


def _version_of(web: Web, model: str, alias: str) -> str:
    row = web.document(f"{_API}/registered-models/alias", name=model, alias=alias).get("model_version")
    version = str(row.get("version", "")) if isinstance(row, dict) else ""
    if re.fullmatch(r"[0-9]{1,9}", version) is None:
        raise _unusable(web, "It names no version.")
    return version


def _root(web: Web, uri: object) -> str:
    parts = urlsplit(uri) if isinstance(uri, str) else urlsplit("")
    path = unquote(parts.path).strip("/")
    ours = parts.hostname in {None, urlsplit(web.remote.endpoint).hostname}
    if parts.scheme != "mlflow-artifacts" or not ours or {"", ".", ".."} & set(path.split("/")):
        raise Unprocessable(
            "artifacts_elsewhere",
            "The tracking server does not hand this model's files out itself.",
            f"They lie at {parts.scheme or 'no address'}:, which is not read. Log the model to a server that serves "
            "its artifacts (mlflow-artifacts:), or upload the file.",
        )
    return path


def _files(web: Web, root: str) -> Iterator[RemoteFile]:
    folders, looked_at = [""], 0
    while folders:
        folder, looked_at = folders.pop(0), looked_at + 1
        if looked_at > MAX_FOLDERS:
            raise _unusable(web, f"The model has more than {MAX_FOLDERS} folders.")
        found = web.document(_ARTIFACTS, path=f"{root}/{folder}".rstrip("/"))
        rows = found.get("files", [])
        for row in rows if isinstance(rows, list) else []:
            name = str(row.get("path") if isinstance(row, dict) else "").rpartition("/")[2]
            if name in {"", ".", ".."}:
                raise _unusable(web, "It names a file that cannot be read.")
            path = f"{folder}/{name}".lstrip("/")
            if row.get("is_dir"):
                folders.append(path)
            else:
                yield _file(root, path, row.get("file_size"))


def _file(root: str, path: str, size: object) -> RemoteFile:
    """Sizes come as numbers from some artifact stores and as texts from others."""
    announced = int(str(size)) if re.fullmatch(r"[0-9]{1,15}", str(size)) else None
    return RemoteFile(path=path, address=f"{_ARTIFACTS}/{quote(f'{root}/{path}')}", size_bytes=announced)


def _unusable(web: Web, why: str) -> Unprocessable:
    return Unprocessable("source_unreadable", f"The answer of {web.remote.name} cannot be used.", why)

"""A revision's objects to take away: one YAML file, a Kustomize base, a Helm chart.

They stand alone. What is Slipway's bookkeeping stays here: the record of the wish, generations, the label by which
Slipway finds what is its own (it would prune what it finds and did not wish for), and the deployment's key, by which
Services select pods: with it, two installations in one namespace would take each other's traffic. No token is in
them. Refused: templates that hold text of the objects; see `chart`.
"""

import gzip
import io
import tarfile
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from deployments.domain.workload import DesiredDeployment, Workload
from deployments.targets.kubernetes import names, written
from deployments.targets.kubernetes.chart import chart
from deployments.targets.kubernetes.render import Manifest, render
from deployments.targets.kubernetes.render.place import Place

KEY_PREFIX = "export-"
_LONG_AGO = (1980, 1, 1, 0, 0, 0)
_TO_PUT_THERE = (
    "# Put the deployment's pull token here. Slipway keeps it in the Secret of this name where it runs the deployment\n"
    "# itself: kubectl get secret NAME -o jsonpath='{.data.token}' | base64 -d\n"
)  # fmt: skip


class Form(StrEnum):
    YAML = "yaml"
    KUSTOMIZE = "kustomize"
    HELM = "helm"


@dataclass(frozen=True, kw_only=True)
class File:
    name: str
    content_type: str
    content: bytes


def export(wished: DesiredDeployment, place: Place, form: Form) -> File:
    """Of a wish with one workload. The same wish is the same bytes."""
    base, revision = names.name_of(wished), wished.workloads[0].revision
    found, name = objects(wished, place), f"{base}-r{revision}"
    match form:
        case Form.YAML:
            text = f"{_heading(base, revision)}---\n" + "---\n".join(map(_text, found))
            return File(name=f"{name}.yaml", content_type="text/plain", content=text.encode())
        case Form.KUSTOMIZE:
            files = _kustomize(found, place, heading=_heading(base, revision))
            return File(
                name=f"{name}-kustomize.zip", content_type="application/zip", content=_zip(base, files)
            )
        case Form.HELM:
            files = chart(found, place, base=base, revision=revision)
            return File(name=f"{name}-chart.tgz", content_type="application/gzip", content=_tgz(base, files))


def objects(wished: DesiredDeployment, place: Place) -> tuple[Manifest, ...]:
    """What `render` makes, without what only Slipway has a use for."""
    alone = replace(
        wished,
        key=f"{KEY_PREFIX}{names.name_of(wished)}",
        workloads=tuple(map(_scaled_by_others, wished.workloads)),
    )
    rendered = render(alone, place)
    return tuple(_plain(one) for one in rendered if names.RECORD not in one["metadata"]["labels"])


def _scaled_by_others(workload: Workload) -> Workload:
    """Our own loop does not reach there: then the size is fixed, and said."""
    cluster = workload.cluster
    if cluster is None or cluster.settings.autoscaler != "slipway":
        return workload
    return replace(workload, cluster=replace(cluster, settings=replace(cluster.settings, autoscaler="none")))


def _plain(one: Manifest) -> Manifest:
    found = one | {"metadata": _metadata(one["metadata"])}
    if one["kind"] == "Secret":
        found.pop("data")
        found["stringData"] = {"token": ""}
    if one["kind"] == "Deployment":
        template = one["spec"]["template"]
        found["spec"] = one["spec"] | {"template": template | {"metadata": _metadata(template["metadata"])}}
    return found


def _metadata(metadata: Mapping[str, Any]) -> dict[str, Any]:
    labels = {name: value for name, value in metadata["labels"].items() if name != names.MANAGED_BY}
    annotations = {
        name: value for name, value in metadata.get("annotations", {}).items() if name != names.GENERATION
    }
    rest = {name: value for name, value in metadata.items() if name not in ("labels", "annotations")}
    return rest | {"labels": labels} | ({"annotations": annotations} if annotations else {})


def _heading(base: str, revision: int) -> str:
    return (
        f"# Revision {revision} of {base}, as Slipway renders it. The token in the Secret is left to you.\n"
    )


def _text(one: Manifest) -> str:
    return (_TO_PUT_THERE if one["kind"] == "Secret" else "") + written.document(one)


# Kustomize


def _kustomize(found: Sequence[Manifest], place: Place, *, heading: str) -> dict[str, str]:
    files = {written.file_name(one): _text(one) for one in found}
    shared = found[0]["metadata"]["labels"]
    images = sorted({_image_name(image) for one in found for image in _images(one)})
    kustomization = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "namespace": place.namespace,
        "labels": [
            {
                "pairs": {name: value for name, value in shared.items() if name != names.KEY},
                "includeTemplates": True,
            }
        ],
        "images": [{"name": image, "newName": image} for image in images],
        "resources": list(files),
    }
    return {"kustomization.yaml": heading + written.document(kustomization)} | files


def _images(one: Manifest) -> Iterable[str]:
    if one["kind"] == "Deployment":
        pod = one["spec"]["template"]["spec"]
        for container in (*pod["initContainers"], *pod["containers"]):
            yield container["image"]


def _image_name(image: str) -> str:
    """Without tag and digest. A colon before the last slash is a registry's port."""
    name = image.partition("@")[0]
    folder, slash, last = name.rpartition("/")
    return f"{folder}{slash}{last.partition(':')[0]}"


# Packed


def _zip(folder: str, files: Mapping[str, str]) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in files.items():
            entry = zipfile.ZipInfo(f"{folder}/{name}", date_time=_LONG_AGO)
            entry.compress_type, entry.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
            archive.writestr(entry, text)
    return packed.getvalue()


def _tgz(folder: str, files: Mapping[str, str]) -> bytes:
    packed = io.BytesIO()
    with (
        gzip.GzipFile(fileobj=packed, mode="wb", filename="", mtime=0) as compressed,
        tarfile.open(fileobj=compressed, mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        for name, text in files.items():
            content = text.encode()
            entry = tarfile.TarInfo(f"{folder}/{name}")
            entry.size, entry.mode = len(content), 0o644
            archive.addfile(entry, io.BytesIO(content))
    return packed.getvalue()

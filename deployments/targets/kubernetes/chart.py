"""The Helm chart of an export: objects as data, values for what differs between environments, one template for both.

The template is the same for every model and holds no text of one, so nothing that a person calls a model can end a
line of it or begin an expression; Helm does not look for expressions in data. Where a text has characters that Helm's
own YAML is not read back with (it leaves the whole object out, without a word), the object is written as JSON.
"""

from collections.abc import Sequence
from typing import Any

from deployments.targets.kubernetes import written
from deployments.targets.kubernetes.render import Manifest
from deployments.targets.kubernetes.render.place import Place


def chart(found: Sequence[Manifest], place: Place, *, base: str, revision: int) -> dict[str, str]:
    about = {
        "apiVersion": "v2",
        "name": base,
        "description": f"Revision {revision} of {base}, as Slipway renders it.",
        "type": "application",
        "version": f"0.{revision}.0",
        "appVersion": str(revision),
    }
    return {
        "Chart.yaml": written.document(about),
        "values.yaml": _values(found, place),
        "templates/objects.yaml": TEMPLATE,
    } | {f"objects/{written.file_name(one)}": written.document(one) for one in found}


def _values(found: Sequence[Manifest], place: Place) -> str:
    """What differs between environments, each with a line that says what it is."""
    by_kind = {one["kind"]: one for one in found}
    pod = by_kind["Deployment"]["spec"]["template"]["spec"]
    server, fetch = pod["containers"][0], pod["initContainers"][0]
    said: list[tuple[str, str, Any]] = [
        ("The image that serves.", "image", server["image"]),
        (
            "Secrets to pull images with, as a pod lists them.",
            "imagePullSecrets",
            pod.get("imagePullSecrets", []),
        ),
        ("Of one replica.", "resources", server["resources"]),
    ]
    if (replicas := by_kind["Deployment"]["spec"].get("replicas")) is not None:
        said.append(("How many pods; nothing scales them.", "replicas", replicas))
    if hpa := by_kind.get("HorizontalPodAutoscaler"):
        low, high = hpa["spec"]["minReplicas"], hpa["spec"]["maxReplicas"]
        said.append(("How many pods there may be.", "autoscaling", {"minReplicas": low, "maxReplicas": high}))
    if scaled := by_kind.get("ScaledObject"):
        low, high = scaled["spec"]["minReplicaCount"], scaled["spec"]["maxReplicaCount"]
        said.append(("How many pods there may be.", "autoscaling", {"minReplicas": low, "maxReplicas": high}))
    said += [
        (
            "What fetches the variant before a pod starts, and Slipway's address as pods reach it.",
            "fetch",
            {"image": fetch["image"], "url": place.fetch_url.rstrip("/")},
        ),
        (
            "The Secret with the pull token. Without `create` it is there already, with the key “token”.",
            "pullSecret",
            {"create": True, "name": by_kind["Secret"]["metadata"]["name"], "token": ""},
        ),
    ]
    return "\n".join(f"# {comment}\n{written.document({name: value})}" for comment, name, value in said)


TEMPLATE = """\
{{- /* Every object of the revision, with what values.yaml says. No text of a model is in here. */ -}}
{{- range $name, $bytes := .Files.Glob "objects/*.yaml" }}
{{- $one := fromYaml (toString $bytes) }}
{{- $_ := set $one.metadata "namespace" $.Release.Namespace }}
{{- if eq $one.kind "Deployment" }}
{{- if hasKey $.Values "replicas" }}{{ $_ := set $one.spec "replicas" (int $.Values.replicas) }}{{ end }}
{{- $pod := $one.spec.template.spec }}
{{- $_ := unset $pod "imagePullSecrets" }}
{{- with $.Values.imagePullSecrets }}{{ $_ := set $pod "imagePullSecrets" . }}{{ end }}
{{- range $pod.containers }}
{{- $_ := set . "image" $.Values.image }}
{{- $_ := set . "resources" $.Values.resources }}
{{- end }}
{{- range $pod.initContainers }}
{{- $_ := set . "image" $.Values.fetch.image }}
{{- $what := last (splitList "/pull/" (first .args)) }}
{{- $address := printf "%s/pull/%s" (trimSuffix "/" $.Values.fetch.url) $what }}
{{- $_ := set . "args" (prepend (rest .args) $address) }}
{{- end }}
{{- range $pod.volumes }}
{{- if eq .name "pull-token" }}{{ $_ := set .secret "secretName" $.Values.pullSecret.name }}{{ end }}
{{- end }}
{{- else if eq $one.kind "HorizontalPodAutoscaler" }}
{{- $_ := set $one.spec "minReplicas" (int $.Values.autoscaling.minReplicas) }}
{{- $_ := set $one.spec "maxReplicas" (int $.Values.autoscaling.maxReplicas) }}
{{- else if eq $one.kind "ScaledObject" }}
{{- $_ := set $one.spec "minReplicaCount" (int $.Values.autoscaling.minReplicas) }}
{{- $_ := set $one.spec "maxReplicaCount" (int $.Values.autoscaling.maxReplicas) }}
{{- else if eq $one.kind "Secret" }}
{{- $_ := set $one.metadata "name" $.Values.pullSecret.name }}
{{- $_ := set $one.stringData "token" $.Values.pullSecret.token }}
{{- end }}
{{- if or (ne $one.kind "Secret") $.Values.pullSecret.create }}
{{- $json := toJson $one }}
---
{{ if regexMatch `[\\x{7f}-\\x{9f}\\x{feff}\\x{fffe}\\x{ffff}]` $json -}}
{{- range concat (untilStep 127 160 1) (list 65279 65534 65535) }}
{{- $json = replace (printf "%c" .) (printf "\\\\u%04x" .) $json }}
{{- end }}
{{- $json }}
{{- else }}
{{- toYaml $one }}
{{- end }}
{{- end }}
{{- end }}
"""

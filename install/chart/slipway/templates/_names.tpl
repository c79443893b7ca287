{{/* Names, labels, images, and the rows of processes.yaml that run here. Dots as each comment says. */}}

{{/* . is the root. */}}
{{- define "slipway.fullname" -}}
{{- $name := ternary .Release.Name (printf "%s-slipway" .Release.Name) (contains "slipway" .Release.Name) -}}
{{- $name | trunc 30 | trimSuffix "-" -}}
{{- end -}}

{{/* . has root and name, the process. */}}
{{- define "slipway.selector" -}}
app.kubernetes.io/name: slipway
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .name }}
{{- end -}}

{{/* . has root and name. */}}
{{- define "slipway.labels" -}}
{{ include "slipway.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ .root.Chart.Name }}-{{ .root.Chart.Version }}
{{- end -}}

{{/* . has root, image (web or worker) and own, which may have an image too. */}}
{{- define "slipway.image" -}}
{{- $image := merge (dict) (default dict .own.image) (index .root.Values.images .image) -}}
{{- if and .own.image (or .own.image.tag .own.image.digest) -}}
{{- $image = merge (dict) .own.image (dict "repository" $image.repository) -}}
{{- end -}}
{{- $repository := $image.repository -}}
{{- with .root.Values.images.registry }}{{ $repository = printf "%s/%s" (trimSuffix "/" .) $repository }}{{ end -}}
{{- if $image.digest -}}
{{ printf "%s@%s" $repository $image.digest }}
{{- else -}}
{{ printf "%s:%s" $repository ($image.tag | default .root.Chart.AppVersion) }}
{{- end -}}
{{- end -}}

{{/* . is the root; YAML of the rows by name, without those whose switch is off. */}}
{{- define "slipway.processes" -}}
{{- $values := .Values -}}
{{- $rows := dict -}}
{{- range $name, $row := (.Files.Get "processes.yaml" | fromYaml).processes -}}
{{- $switch := default dict (index $values (default "none" $row.switch)) -}}
{{- if or (not $row.switch) $switch.enabled -}}
{{- $_ := set $rows $name $row -}}
{{- end -}}
{{- end -}}
{{- toYaml $rows -}}
{{- end -}}

{{/* . has root, name and row: how many run, refused where one must be alone. */}}
{{- define "slipway.replicas" -}}
{{- $own := default dict (index .root.Values.processes .name) -}}
{{- $wanted := ternary $own.replicas .row.copies (hasKey $own "replicas") -}}
{{- if and .row.single (gt (int $wanted) 1) -}}
{{- fail (printf "processes.%s.replicas is %d: at most one may run at a time, because a second would do the same work again." .name (int $wanted)) -}}
{{- end -}}
{{- int $wanted -}}
{{- end -}}

{{/* . has root, name and row: the service account, its own where it talks to this cluster. */}}
{{- define "slipway.account" -}}
{{- $full := include "slipway.fullname" .root -}}
{{- if include "slipway.token" . -}}{{ $full }}-{{ .name }}{{- else -}}{{ $full }}{{- end -}}
{{- end -}}

{{/* . has root and row; empty where the process does not talk to this cluster. */}}
{{- define "slipway.token" -}}
{{- if and .row.access .root.Values.clusterNamespaces }}yes{{ end -}}
{{- end -}}

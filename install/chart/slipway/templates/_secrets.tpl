{{/* Where each secret of a process comes from. */}}

{{/* . has values (such as .Values.postgres), field (url, value or password) and path: refused unless exactly one. */}}
{{- define "slipway.one" -}}
{{- $given := index .values .field -}}
{{- if and $given .values.existingSecret -}}
{{- fail (printf "%s.%s and %s.existingSecret are both set: keep one of them." .path .field .path) -}}
{{- else if not (or $given .values.existingSecret) -}}
{{- fail (printf "Neither %s.%s nor %s.existingSecret is set: name a Secret that exists, or give the value." .path .field .path) -}}
{{- end -}}
{{- end -}}

{{/* . is the root: what the chart's own Secret holds, as YAML. Empty where every secret exists already. */}}
{{- define "slipway.secretData" -}}
{{- include "slipway.one" (dict "values" .Values.postgres "field" "url" "path" "postgres") -}}
{{- include "slipway.one" (dict "values" .Values.redis "field" "url" "path" "redis") -}}
{{- include "slipway.one" (dict "values" .Values.secretKey "field" "value" "path" "secretKey") -}}
{{- $data := dict -}}
{{- with .Values.postgres.url }}{{ $_ := set $data "DATABASE_URL" . }}{{ end -}}
{{- with .Values.redis.url }}{{ $_ := set $data "REDIS_URL" . }}{{ end -}}
{{- with .Values.secretKey.value }}{{ $_ := set $data "SLIPWAY_SECRET_KEY" . }}{{ end -}}
{{- with .Values.admin.password }}{{ $_ := set $data "SLIPWAY_ADMIN_PASSWORD" . }}{{ end -}}
{{- if and .Values.admin.password .Values.admin.existingSecret -}}
{{- fail "admin.password and admin.existingSecret are both set: keep one of them." -}}
{{- end -}}
{{- if $data }}{{ toYaml $data }}{{ end -}}
{{- end -}}

{{/* . has root, secrets (variables) and made, the name of the chart's own Secret: a list of env. */}}
{{- define "slipway.secretEnv" -}}
{{- $values := .root.Values -}}
{{- $made := .made -}}
{{- $from := dict
  "DATABASE_URL" (dict "values" $values.postgres "given" $values.postgres.url)
  "REDIS_URL" (dict "values" $values.redis "given" $values.redis.url)
  "SLIPWAY_SECRET_KEY" (dict "values" $values.secretKey "given" $values.secretKey.value)
  "SLIPWAY_KEDA_TOKEN" (dict "values" $values.metricsApi.kedaToken "given" "")
  "SLIPWAY_ADMIN_PASSWORD" (dict "values" $values.admin "given" $values.admin.password) -}}
{{- range $variable := .secrets }}
{{- $source := index $from $variable }}
{{- if not $source }}
{{- with $values.importTokens.existingSecret }}
- name: {{ $variable }}
  valueFrom: {secretKeyRef: {name: {{ . }}, key: {{ $variable }}, optional: true}}
{{- end }}
{{- else if $source.given }}
- name: {{ $variable }}
  valueFrom: {secretKeyRef: {name: {{ $made }}, key: {{ $variable }}}}
{{- else if $source.values.existingSecret }}
- name: {{ $variable }}
  valueFrom: {secretKeyRef: {name: {{ $source.values.existingSecret }}, key: {{ $source.values.key }}}}
{{- end }}
{{- end }}
{{- end -}}

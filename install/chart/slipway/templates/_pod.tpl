{{/* One pod template for every process, the migration and the test: level “restricted”, no token unless it is needed. */}}

{{/* . has root. */}}
{{- define "slipway.podSecurity" -}}
runAsNonRoot: true
runAsUser: 1000
runAsGroup: 1000
fsGroup: 1000
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {{- toYaml .root.Values.seccompProfile | nindent 2 }}
{{- end -}}

{{- define "slipway.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}

{{/* . has root, row, own and made: a list of env. */}}
{{- define "slipway.env" -}}
{{- $values := .root.Values -}}
- {name: SLIPWAY_HOME, value: /var/lib/slipway}
- {name: SLIPWAY_ADDRESS, value: {{ printf "%s:%d" $values.host (ternary 443 80 $values.tls) | quote }}}
- {name: SLIPWAY_HOSTS, value: {{ join "," $values.extraHosts | quote }}}
- {name: SLIPWAY_TLS, value: {{ $values.tls | quote }}}
- {name: SLIPWAY_CLIENT_IP_HEADER, value: {{ $values.clientIpHeader | quote }}}
- {name: SLIPWAY_WORKER_FINISH_S, value: {{ $values.workerFinishSeconds | quote }}}
- {name: HOME, value: /tmp}
{{- if .row.servesTls }}
- {name: SLIPWAY_METRICS_ADDRESS, value: "0.0.0.0:{{ .row.port }}"}
- {name: SLIPWAY_METRICS_CERT, value: /etc/slipway/tls/tls.crt}
- {name: SLIPWAY_METRICS_KEY, value: /etc/slipway/tls/tls.key}
- {name: SLIPWAY_METRICS_CLIENT_CA, value: {{ ternary "/etc/slipway/tls/client-ca.crt" "" (not (empty $values.metricsApi.clientCa)) | quote }}}
- {name: SLIPWAY_METRICS_CLIENT_NAMES, value: {{ join "," $values.metricsApi.clientNames | quote }}}
{{- end }}
{{- range $name, $value := .row.environment }}
- {name: {{ $name }}, value: {{ $value | quote }}}
{{- end }}
{{- include "slipway.secretEnv" (dict "root" .root "secrets" .row.secrets "made" .made) }}
{{- range $name, $value := $values.settings }}
- {name: {{ $name }}, value: {{ kindIs "string" $value | ternary $value (toJson $value) | quote }}}  {{- /* 4294967296, not 4.3e+09 */}}
{{- end }}
{{- with .own.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* . has path, port and scheme of a row; kubelet asks by the pod's address, which is no name that web answers to. */}}
{{- define "slipway.probe" -}}
{{- if .path -}}
httpGet:
  path: {{ .path }}
  port: main
  scheme: {{ ternary "HTTPS" "HTTP" (default false .servesTls) }}
  httpHeaders: [{name: Host, value: localhost}]
{{- else -}}
tcpSocket: {port: main}
{{- end }}
timeoutSeconds: 5
{{- end -}}

{{/* . has root, name, row, own and made: a pod's spec. */}}
{{- define "slipway.pod" -}}
{{- $values := .root.Values -}}
{{- $grace := .row.stopSeconds -}}
{{- if eq .row.image "worker" }}{{ $grace = add $grace (ceil $values.workerFinishSeconds) }}{{ end -}}
enableServiceLinks: false
automountServiceAccountToken: {{ if and (not .job) (include "slipway.token" .) }}true{{ else }}false{{ end }}
{{- if not .job }}
serviceAccountName: {{ include "slipway.account" . }}
{{- end }}
terminationGracePeriodSeconds: {{ $grace }}
securityContext: {{- include "slipway.podSecurity" . | nindent 2 }}
{{- with $values.images.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- with .own.runtimeClassName }}
runtimeClassName: {{ . }}
{{- end }}
{{- with .own.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .own.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .own.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .own.affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- if not .job }}
topologySpreadConstraints:
  - maxSkew: 1
    topologyKey: kubernetes.io/hostname
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels: {{- include "slipway.selector" . | nindent 8 }}
{{- end }}
{{- if .row.frontEnd }}
initContainers:
  - name: front-end  # the pod's own folder hides what the image has there
    image: {{ include "slipway.image" (dict "root" .root "image" .row.image "own" .own) }}
    imagePullPolicy: {{ $values.images.pullPolicy }}
    command: [cp, -R, /var/lib/slipway/vendor, /home-of-the-pod/]
    securityContext: {{- include "slipway.containerSecurity" . | nindent 6 }}
    resources: {requests: {cpu: 50m, memory: 32Mi}, limits: {memory: 64Mi}}
    volumeMounts:
      - {name: home, mountPath: /home-of-the-pod}
{{- end }}
containers:
  - name: {{ .row.name | default .name }}
    image: {{ include "slipway.image" (dict "root" .root "image" .row.image "own" .own) }}
    imagePullPolicy: {{ $values.images.pullPolicy }}
    command: {{- toYaml .row.command | nindent 6 }}
    env: {{- include "slipway.env" . | nindent 6 }}
    securityContext: {{- include "slipway.containerSecurity" . | nindent 6 }}
    {{- $resources := deepCopy (default $values.defaultResources .own.resources) }}
    {{- with .own.resource }}
    {{- $_ := set $resources "limits" (merge (dict . 1) (default dict $resources.limits)) }}
    {{- end }}
    resources: {{- toYaml $resources | nindent 6 }}
    {{- if .row.port }}
    ports:
      - {name: main, containerPort: {{ .row.port }}}
    startupProbe: {{- include "slipway.probe" (dict "path" .row.alive "servesTls" .row.servesTls) | nindent 6 }}
      periodSeconds: 2
      failureThreshold: 60
    livenessProbe: {{- include "slipway.probe" (dict "path" .row.alive "servesTls" .row.servesTls) | nindent 6 }}
      periodSeconds: 10
      failureThreshold: 6
    readinessProbe: {{- include "slipway.probe" (dict "path" .row.ready "servesTls" .row.servesTls) | nindent 6 }}
      periodSeconds: 5
      failureThreshold: 2
    lifecycle:
      preStop: {sleep: {seconds: 5}}  # the endpoints hear of its end first
    {{- end }}
    volumeMounts:
      - {name: home, mountPath: /var/lib/slipway}
      - {name: tmp, mountPath: /tmp}
      {{- if .row.storage }}
      - {name: artifacts, mountPath: /var/lib/slipway/artifacts}
      {{- end }}
      {{- if .row.servesTls }}
      - {name: tls, mountPath: /etc/slipway/tls, readOnly: true}
      {{- end }}
      {{- with .own.extraVolumeMounts }}
      {{- toYaml . | nindent 6 }}
      {{- end }}
volumes:
  - name: home
    emptyDir: {sizeLimit: {{ $values.scratch.size }}}
  - name: tmp
    emptyDir: {sizeLimit: 2Gi}
  {{- if .row.storage }}
  - name: artifacts
    persistentVolumeClaim:
      claimName: {{ $values.storage.existingClaim | default (printf "%s-artifacts" (include "slipway.fullname" .root)) }}
  {{- end }}
  {{- if .row.servesTls }}
  - name: tls
    projected:
      defaultMode: 0440
      sources:
        - secret: {name: {{ $values.metricsApi.tlsSecret }}}
        {{- if $values.metricsApi.clientCa }}
        - configMap: {name: {{ include "slipway.fullname" .root }}-metrics-client-ca}
        {{- end }}
  {{- end }}
  {{- with .own.extraVolumes }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end -}}

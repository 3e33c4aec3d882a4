{{- define "penstock.name" -}}
{{- if contains "penstock" .Release.Name }}{{ .Release.Name | trunc 40 | trimSuffix "-" }}
{{- else }}{{ printf "%s-penstock" .Release.Name | trunc 40 | trimSuffix "-" }}{{ end }}
{{- end }}

{{/* Labels that select a component's pods: dict "root" $ "component" "ingest". */}}
{{- define "penstock.selector" -}}
app.kubernetes.io/name: penstock
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "penstock.labels" -}}
{{ include "penstock.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ .root.Chart.Name }}-{{ .root.Chart.Version }}
{{- end }}

{{- define "penstock.image" -}}
{{ .root.Values.image.registry }}/{{ .component }}:{{ .root.Values.image.tag | default .root.Chart.AppVersion }}
{{- end }}

{{- define "penstock.bootstrap" -}}
{{- if .Values.kafka.enabled }}{{ include "penstock.name" . }}-kafka-bootstrap:9092
{{- else }}{{ required "kafka.bootstrap is needed when kafka.enabled is false" .Values.kafka.bootstrap }}{{ end }}
{{- end }}

{{- define "penstock.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
seccompProfile: { type: RuntimeDefault }
{{- end }}

{{- define "penstock.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: { drop: [ALL] }
{{- end }}

{{/* What every pod has: account, image secrets, security. */}}
{{- define "penstock.pod" -}}
automountServiceAccountToken: false
# The links' variables begin with PENSTOCK_ in a release of that name, and services refuse those
# that they do not know.
enableServiceLinks: false
{{- with .root.Values.image.pullSecrets }}
imagePullSecrets: {{ toYaml . | nindent 2 }}
{{- end }}
securityContext: {{ include "penstock.podSecurity" . | nindent 2 }}
{{- end }}

{{/* A change of shared settings rolls the pods: they read them at their start. */}}
{{- define "penstock.podAnnotations" -}}
checksum/settings: {{ include (print .root.Template.BasePath "/configmap.yaml") .root | sha256sum }}
prometheus.io/scrape: "true"
prometheus.io/port: {{ .metrics | quote }}
{{- end }}

{{/* The settings that all read, from the ConfigMap. */}}
{{- define "penstock.envFrom" -}}
- configMapRef: { name: {{ include "penstock.name" .root }}-settings }
{{- end }}

{{/* More settings of one service: dict "prefix" "INGEST" "settings" .Values.ingest.extraSettings. */}}
{{- define "penstock.extraEnv" -}}
{{- $prefix := .prefix }}
{{- range $name, $value := .settings }}
- { name: PENSTOCK_{{ $prefix }}_{{ $name }}, value: {{ $value | quote }} }
{{- end }}
{{- end }}

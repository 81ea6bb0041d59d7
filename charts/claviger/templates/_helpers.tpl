{{/* The chart's name. */}}
{{- define "claviger.name" -}}
{{- .Values.nameOverride | default .Chart.Name | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{/* What the objects of this release begin with: `claviger` for the release `claviger`. Room is left for what follows. */}}
{{- define "claviger.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- $name := include "claviger.name" . -}}
{{- (contains $name .Release.Name | ternary .Release.Name (printf "%s-%s" .Release.Name $name)) | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* The controller's Deployment, its rights, and its Lease. */}}
{{- define "claviger.controller" -}}
{{ include "claviger.fullname" . }}-controller
{{- end -}}

{{/* The gate's Deployment, its Service and its rights. */}}
{{- define "claviger.gate" -}}
{{ include "claviger.fullname" . }}-gate
{{- end -}}

{{/* Whom the gate is to the API server: another account than the controller, for it may do less. */}}
{{- define "claviger.gate.serviceAccount" -}}
{{- if .Values.gate.serviceAccount.create -}}
{{- .Values.gate.serviceAccount.name | default (include "claviger.gate" .) -}}
{{- else -}}
{{- required "gate.serviceAccount.name is needed where gate.serviceAccount.create is false" .Values.gate.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{/* Whom the controller is to the API server. */}}
{{- define "claviger.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- .Values.serviceAccount.name | default (include "claviger.controller" .) -}}
{{- else -}}
{{- required "serviceAccount.name is needed where serviceAccount.create is false" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "claviger.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/name: {{ include "claviger.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/part-of: claviger
{{- end -}}

{{/* What the controller's pods are found by; never to be changed, for a Deployment's selector cannot be. */}}
{{- define "claviger.controller.selector" -}}
app.kubernetes.io/name: {{ include "claviger.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: controller
{{- end -}}

{{/* The controller, as the subject of a binding. */}}
{{- define "claviger.subjects" -}}
- kind: ServiceAccount
  name: {{ include "claviger.serviceAccount" . }}
  namespace: {{ .Release.Namespace }}
{{- end -}}

{{- define "claviger.image" -}}
{{- with .Values.image -}}
{{ .repository }}{{ if .digest }}@{{ .digest }}{{ else }}:{{ .tag | default $.Chart.AppVersion }}{{ end }}
{{- end -}}
{{- end -}}

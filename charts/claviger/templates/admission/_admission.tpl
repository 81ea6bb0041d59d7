{{/*
What every policy here but the gates' is about: ApiKeys, not their status. One release in a cluster installs them, so their names are fixed.
*/}}
{{- define "claviger.admission.apikeys" -}}
resourceRules:
- {apiGroups: [claviger.dev], apiVersions: [v1alpha1], resources: [apikeys], scope: Namespaced, operations: [{{ join ", " . }}]}
{{- end -}}

{{/* A policy newer than a key never stands in the way of its deletion. By the old object: what a request says of itself proves nothing. */}}
{{- define "claviger.admission.alive" -}}
- name: is-not-being-deleted
  expression: request.operation == 'CREATE' || !has(oldObject.metadata.deletionTimestamp)
{{- end -}}

{{- define "claviger.admission.metadata" -}}
metadata:
  name: {{ .name }}
  labels:
    {{- include "claviger.labels" .root | nindent 4 }}
{{- end -}}

{{- define "claviger.admission.binding" -}}
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
{{ include "claviger.admission.metadata" . }}
spec:
  policyName: {{ .name }}
  validationActions: [Deny]
{{- end -}}

{{/* What the gate's pods are found by; never to be changed, for a Deployment's selector cannot be. */}}
{{- define "claviger.gate.selector" -}}
app.kubernetes.io/name: {{ include "claviger.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: gate
{{- end -}}

{{- define "claviger.gate.metadata" -}}
metadata:
  name: {{ .name }}
  namespace: {{ .root.Release.Namespace }}
  labels:
    {{- include "claviger.labels" .root | nindent 4 }}
    app.kubernetes.io/component: gate
{{- end -}}

{{/* A length of time such as 90s, in milliseconds. */}}
{{- define "claviger.milliseconds" -}}
{{- $number := regexFind "^[0-9]+" . | int64 -}}
{{- $unit := regexFind "[a-z]+$" . -}}
{{- mul $number (get (dict "ms" 1 "s" 1000 "m" 60000 "h" 3600000) $unit) -}}
{{- end -}}

{{/* What no schema can say: values that only make sense together. */}}
{{- define "claviger.gate.check" -}}
{{- $gate := .Values.gate -}}
{{- $tls := $gate.tls.secretName -}}
{{- $callers := $gate.verifyCallers -}}
{{- if and (has "none" $callers) (gt (len $callers) 1) -}}
{{- fail "gate.verifyCallers: none opens /v1/verify to everybody and cannot be combined with others: leave either out" -}}
{{- end -}}
{{- if and (has "token" $callers) .Values.watchNamespace .Values.rbac.create (not .Values.rbac.clusterReads) -}}
{{- fail "gate.verifyCallers: token needs rbac.clusterReads, because whose token it is, and what that user may do, is asked of the whole cluster: set gate.verifyCallers to mtls or none, or gate.enabled to false; or set rbac.create to false and have somebody bind the ClusterRole system:auth-delegator to the gate's ServiceAccount" -}}
{{- end -}}
{{- if and (not $gate.plainHttp) (not $tls) -}}
{{- fail "gate.plainHttp: false needs gate.tls.secretName: nothing would be served" -}}
{{- end -}}
{{- if and $gate.tls.clientCa.secretName (not $tls) -}}
{{- fail "gate.tls.clientCa.secretName needs gate.tls.secretName: client certificates are shown over TLS only" -}}
{{- end -}}
{{- if and (eq $gate.proxyCallers "mtls") (not $gate.tls.clientCa.secretName) -}}
{{- fail "gate.proxyCallers: mtls needs gate.tls.secretName and gate.tls.clientCa.secretName" -}}
{{- end -}}
{{- if and (has "mtls" $callers) (not $gate.tls.clientCa.secretName) -}}
{{- fail "gate.verifyCallers: mtls needs gate.tls.secretName and gate.tls.clientCa.secretName" -}}
{{- end -}}
{{- if and $gate.networkPolicy.enabled (not $gate.networkPolicy.ingressFrom) -}}
{{- fail "gate.networkPolicy.enabled needs gate.networkPolicy.ingressFrom: a policy without peers lets every pod ask. List who may ask, such as {namespaceSelector: {matchLabels: {team: ingress}}}" -}}
{{- end -}}
{{- if $gate.maxStaleness -}}
{{- if le (include "claviger.milliseconds" $gate.maxStaleness | int64) (add (include "claviger.milliseconds" $gate.watchTimeout | int64) 5000) -}}
{{- fail "gate.maxStaleness must be more than gate.watchTimeout and five seconds: in a quiet cluster a watch shows that it lives when it ends" -}}
{{- end -}}
{{- end -}}
{{- if $gate.autoscaling.enabled -}}
{{- if gt (int $gate.autoscaling.minReplicas) (int $gate.autoscaling.maxReplicas) -}}
{{- fail "gate.autoscaling.minReplicas is more than gate.autoscaling.maxReplicas" -}}
{{- end -}}
{{- if not (dig "requests" "cpu" "" $gate.resources) -}}
{{- fail "gate.autoscaling.enabled needs gate.resources.requests.cpu: its use is measured against that" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* How many pods there are at least. */}}
{{- define "claviger.gate.least" -}}
{{- .Values.gate.autoscaling.enabled | ternary .Values.gate.autoscaling.minReplicas .Values.gate.replicas -}}
{{- end -}}

{{- define "kvsync.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 34 | trimSuffix "-" -}}
{{- end }}

{{- define "kvsync.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 34 | trimSuffix "-" -}}
{{- else -}}
{{- $name := include "kvsync.name" . -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 34 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 34 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end }}

{{- define "kvsync.operatorName" -}}
{{- printf "%s-operator" (include "kvsync.fullname" .) -}}
{{- end }}

{{- define "kvsync.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "kvsync.operatorName" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end }}

{{- define "kvsync.selectorLabels" -}}
app.kubernetes.io/name: kvsync-operator
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "kvsync.labels" -}}
{{ include "kvsync.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: kvsync
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name (.Chart.Version | replace "+" "_") }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* The metadata of an object; the argument is (dict "root" $ "name" NAME "annotations" MAP). */}}
{{- define "kvsync.metadata" -}}
name: {{ .name }}
labels:
  {{- include "kvsync.labels" .root | nindent 2 }}
{{- with merge (default dict .annotations) .root.Values.commonAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* The reference of an image; the argument is (dict "root" $ "image" MAP). */}}
{{- define "kvsync.image" -}}
{{- $repository := .image.repository -}}
{{- with .root.Values.images.registry }}{{- $repository = printf "%s/%s" (trimSuffix "/" .) $repository -}}{{- end -}}
{{- printf "%s:%s" $repository (default .root.Chart.AppVersion .image.tag) -}}
{{- end }}

{{/* The namespaces that the operator serves, as a JSON list that begins with the namespace of the release. */}}
{{- define "kvsync.namespaces" -}}
{{- prepend .Values.operator.namespaces .Release.Namespace | uniq | toJson -}}
{{- end }}

{{/* The permissions of the operator in a namespace that it serves. They include those it grants to index pods, because
Kubernetes does not let an account grant permissions that it does not have. */}}
{{- define "kvsync.rules" -}}
- apiGroups: [kvsync.dev]
  resources: [mockengines, prefixindexes]
  verbs: [get, list, watch]
- apiGroups: [kvsync.dev]
  resources: [mockengines/status, prefixindexes/status]
  verbs: [get, patch]
- apiGroups: [""]
  resources: [configmaps, services, serviceaccounts]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [apps]
  resources: [deployments, statefulsets]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [networking.k8s.io]
  resources: [networkpolicies]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [rbac.authorization.k8s.io]
  resources: [roles, rolebindings]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [inference.networking.k8s.io]
  resources: [inferencepools]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch]
- apiGroups: [""]
  resources: [events]
  verbs: [create, patch]
{{- end }}

{{/* Names are fixed: there is one operator in a cluster, and docs and alerts say so. */}}

{{- define "fingerpost.selector" -}}
app.kubernetes.io/name: fingerpost-manager
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "fingerpost.labels" -}}
{{ include "fingerpost.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
{{ include "fingerpost.objectLabels" . }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version | replace "+" "_" }}
{{- end }}

{{/* Labels of Datacenters and zones: upgrades do not change them. */}}
{{- define "fingerpost.objectLabels" -}}
app.kubernetes.io/part-of: fingerpost
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{/* Image of one program: (dict "root" . "program" "manager"). */}}
{{- define "fingerpost.image" -}}
{{- $image := .root.Values.image -}}
{{- with $image.registry }}{{ . }}/{{ end }}{{ with $image.repository }}{{ . }}/{{ end }}{{ .program }}
{{- with get $image.digests .program }}@{{ . }}{{ else }}:{{ $image.tag | default .root.Chart.AppVersion }}{{ end }}
{{- end }}

{{/* Namespaces whose zones need no parent, with commas. */}}
{{- define "fingerpost.apexNamespaces" -}}
{{- $namespaces := .Values.apexNamespaces | default list -}}
{{- if .Values.rootZone.enabled }}{{ $namespaces = append $namespaces .Values.rootZone.namespace }}{{ end -}}
{{- $namespaces | uniq | join "," -}}
{{- end }}

{{/* Namespaces that are watched beside that of the release, as a list; empty: all. */}}
{{- define "fingerpost.watchNamespaces" -}}
{{- $namespaces := .Values.watchNamespaces | default list -}}
{{- if and $namespaces .Values.rootZone.enabled }}{{ $namespaces = append $namespaces .Values.rootZone.namespace }}{{ end -}}
{{- $namespaces | uniq | toJson -}}
{{- end }}

{{- define "fingerpost.podSecurityContext" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "fingerpost.securityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

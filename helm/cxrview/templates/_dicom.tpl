{{/* Not empty if results are delivered */}}
{{- define "cxrview.delivers" -}}
{{- with .Values.destinations }}{{ or .configMapName .secretName }}{{ end -}}
{{- end -}}

{{/* Not empty if the outbox is SQLite on a volume, which only one pod may use */}}
{{- define "cxrview.sqlite" -}}
{{- if and (include "cxrview.delivers" .) (not .Values.outbox.urlSecretName) }}sqlite{{ end -}}
{{- end -}}

{{- define "cxrview.outbox" -}}
{{ include "cxrview.name" . | trunc 56 | trimSuffix "-" }}-outbox
{{- end -}}

{{- define "cxrview.dicom" -}}
{{ include "cxrview.name" . | trunc 57 | trimSuffix "-" }}-dicom
{{- end -}}

{{/* Refuse values that would install and not work */}}
{{- define "cxrview.checkDicom" -}}
{{- if and .Values.dicom.enabled (not (include "cxrview.delivers" .)) }}
{{- fail "destinations.configMapName or destinations.secretName: the DICOM receiver needs to know where results go" }}
{{- end }}
{{- if and .Values.dicom.enabled (not .Values.config.dicom_callers) }}
{{- fail "config.dicom_callers: who may send to the DICOM receiver, as [CT1@10.1.0.0/16]; without it no other machine may" }}
{{- end }}
{{- if and .Values.dicom.tls.clientsSecretName (not .Values.dicom.tls.secretName) }}
{{- fail "dicom.tls.secretName: clients show certificates only to a receiver that has one" }}
{{- end }}
{{- if and (include "cxrview.sqlite" .) (or (gt (int .Values.replicas) 1) .Values.autoscaling.enabled .Values.keda.enabled) }}
{{- fail "outbox: SQLite is for one pod: set replicas: 1, without autoscaling and keda, or name a PostgreSQL database in outbox.urlSecretName" }}
{{- end }}
{{- if and (include "cxrview.delivers" .) .Values.networkPolicy.enabled (not .Values.networkPolicy.egress) }}
{{- fail "networkPolicy.egress: rules that let the pods reach the destinations; without any, no result can be delivered" }}
{{- end }}
{{- end -}}

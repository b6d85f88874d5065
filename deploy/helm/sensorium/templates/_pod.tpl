{{/* A TOML file of settings: JSON's scalars are TOML's. */}}
{{- define "sensorium.profile" -}}
{{- range $name, $value := .Values.settings -}}
{{ $name }} = {{ toJson $value }}
{{ end }}
{{- end }}

{{/*
The longest that a pod may take to end: the preStop sleep, then draining until idle, Triton's own
exit timeout of the same length, five seconds until it is killed, and some to spare.
*/}}
{{- define "sensorium.graceSeconds" -}}
{{- $drain := int .Values.settings.drain_timeout_s }}
{{- add (int .Values.preStopSeconds) $drain $drain 15 }}
{{- end }}

{{/* How long a start may take, and a minute: the server itself gives up first. */}}
{{- define "sensorium.startSeconds" -}}
{{- add (ceil .Values.settings.startup_timeout_s) 60 }}
{{- end }}

{{- define "sensorium.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{- define "sensorium.env" -}}
- name: SENSORIUM_PROFILE
  value: /etc/sensorium/profile.toml
- name: SENSORIUM_HOST
  value: {{ .Values.listenAddress | quote }}
- name: SENSORIUM_REPOSITORY
  value: /models
- name: SENSORIUM_CACHE_DIR
  value: /cache
{{- if .Values.tls.secretName }}
- name: SENSORIUM_GRPC_TLS_CERT
  value: /etc/sensorium-tls/tls.crt
- name: SENSORIUM_GRPC_TLS_KEY
  value: /etc/sensorium-tls/tls.key
{{- if .Values.tls.verifyClients }}
- name: SENSORIUM_GRPC_TLS_CLIENT_CA
  value: /etc/sensorium-tls/ca.crt
{{- end }}
{{- end }}
{{- with .Values.env }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "sensorium.resources" -}}
{{- $resources := deepCopy .Values.resources }}
{{- if .Values.gpu.count }}
{{- $limits := dict .Values.gpu.resource (int .Values.gpu.count) }}
{{- $_ := set $resources "limits" (merge $limits (default dict $resources.limits)) }}
{{- end }}
{{- toYaml $resources }}
{{- end }}

{{- define "sensorium.volumeMounts" -}}
- name: profile
  mountPath: /etc/sensorium
  readOnly: true
- name: cache
  mountPath: /cache
- name: temporary
  mountPath: /tmp
- name: shared-memory
  mountPath: /dev/shm
{{- if ne .Values.modelRepository.source "image" }}
- name: models
  mountPath: /models
  readOnly: true
  {{- if eq .Values.modelRepository.source "pvc" }}
  {{- with .Values.modelRepository.pvc.subPath }}
  subPath: {{ . }}
  {{- end }}
  {{- end }}
{{- end }}
{{- if .Values.tls.secretName }}
- name: tls
  mountPath: /etc/sensorium-tls
  readOnly: true
{{- end }}
{{- end }}

{{- define "sensorium.volumes" -}}
- name: profile
  configMap:
    name: {{ include "sensorium.fullname" . }}
- name: cache
{{- if .Values.cache.claimName }}
  persistentVolumeClaim:
    claimName: {{ .Values.cache.claimName }}
{{- else }}
  emptyDir:
    sizeLimit: {{ .Values.cache.sizeLimit }}
{{- end }}
- name: temporary
  emptyDir:
    sizeLimit: {{ .Values.temporary.sizeLimit }}
- name: shared-memory
  emptyDir:
    medium: Memory
    sizeLimit: {{ .Values.sharedMemory.sizeLimit }}
{{- if eq .Values.modelRepository.source "pvc" }}
- name: models
  persistentVolumeClaim:
    claimName: {{ .Values.modelRepository.pvc.claimName }}
    readOnly: true
{{- else if eq .Values.modelRepository.source "objectStore" }}
- name: models
  emptyDir:
    sizeLimit: {{ .Values.modelRepository.objectStore.sizeLimit }}
{{- end }}
{{- if .Values.tls.secretName }}
- name: tls
  secret:
    secretName: {{ .Values.tls.secretName }}
    defaultMode: 0440
{{- end }}
{{- end }}

{{/* Copies the model repository; the server checks every digest before it starts. */}}
{{- define "sensorium.fetch" -}}
- name: fetch-models
  image: {{ .Values.modelRepository.objectStore.image }}
  args:
    - sync
    - --config=/tmp/rclone.conf
    - --cache-dir=/tmp
    - --retries=5
    - {{ .Values.modelRepository.objectStore.url | quote }}
    - /models
  {{- with .Values.modelRepository.objectStore.secretName }}
  envFrom:
    - secretRef:
        name: {{ . }}
  {{- end }}
  securityContext:
    {{- include "sensorium.containerSecurity" . | nindent 4 }}
  resources:
    requests:
      cpu: 500m
      memory: 256Mi
    limits:
      memory: 1Gi
  volumeMounts:
    - name: models
      mountPath: /models
    - name: temporary
      mountPath: /tmp
{{- end }}

{{/* A Ray pod: dict "root" $ "image" ... "resources" ... "health" "head" or "worker". */}}
{{- define "penstock.inferencePod" -}}
{{- $inference := .root.Values.inference }}
{{- include "penstock.pod" . }}
# Longer than the drain of pump and engine.
terminationGracePeriodSeconds: 60
containers:
  - name: ray
    image: {{ .image }}
    imagePullPolicy: {{ .root.Values.image.pullPolicy }}
    securityContext: {{ include "penstock.containerSecurity" . | nindent 6 }}
    envFrom:
      {{- include "penstock.envFrom" . | nindent 6 }}
      {{- with $inference.apiKeys.existingSecret }}
      # Variables that the models file names; every pod has them, since any may hold any engine.
      - secretRef: { name: {{ . }} }
      {{- end }}
    # The application is built where Ray pleases, with that pod's settings: all have the same ones.
    env:
      # Every address of the pod; an engine then announces its own pod's.
      - { name: PENSTOCK_INFERENCE_HOST, value: 0.0.0.0 }
      - { name: PENSTOCK_INFERENCE_METRICS_PORT, value: {{ $inference.metricsPort | quote }} }
      {{- if $inference.models }}
      - { name: PENSTOCK_INFERENCE_MODELS, value: /etc/penstock/models/models.yaml }
      {{- else }}
      - { name: PENSTOCK_INFERENCE_MODEL, value: /models/current }
      - { name: PENSTOCK_INFERENCE_MODEL_NAME, value: {{ $inference.modelName | quote }} }
      - { name: PENSTOCK_INFERENCE_ENGINE_REPLICAS, value: {{ $inference.engineReplicas | quote }} }
      - { name: PENSTOCK_INFERENCE_ENGINE_GPUS, value: {{ ternary $inference.gpu.perEngine 0 $inference.gpu.enabled | quote }} }
      {{- end }}
      {{- if $inference.adaptersVolume }}
      - { name: PENSTOCK_INFERENCE_ADAPTERS_DIR, value: /adapters }
      {{- end }}
      - { name: PENSTOCK_INFERENCE_PUMP_REPLICAS, value: {{ $inference.pumpReplicas | quote }} }
      {{- with include "penstock.extraEnv" (dict "prefix" "INFERENCE" "settings" $inference.extraSettings) | trim }}{{ . | nindent 6 }}{{ end }}
      - { name: HOME, value: /tmp }
    ports:
      {{- if eq .health "head" }}
      - { name: gcs, containerPort: 6379 }
      - { name: dashboard, containerPort: 8265 }
      {{- end }}
      - { name: metrics, containerPort: {{ $inference.metricsPort }} }
    # KubeRay's own probes call wget, which the image does not have, and ask for a Serve proxy,
    # which the application does not need: its requests come from Kafka.
    {{- range $probe := list "readinessProbe" "livenessProbe" }}
    {{ $probe }}:
      httpGet: { path: /api/local_raylet_healthz, port: 52365 }
      initialDelaySeconds: 20
      periodSeconds: 5
      timeoutSeconds: 5
      failureThreshold: {{ ternary 3 24 (eq $probe "readinessProbe") }}
    {{- end }}
    resources: {{ toYaml .resources | nindent 6 }}
    volumeMounts:
      - { name: tmp, mountPath: /tmp }
      - { name: model, mountPath: /models/current, readOnly: true }
      {{- if $inference.adaptersVolume }}
      - { name: adapters, mountPath: /adapters, readOnly: true }
      {{- end }}
      {{- if $inference.models }}
      - { name: models, mountPath: /etc/penstock/models, readOnly: true }
      {{- end }}
volumes:
  - { name: tmp, emptyDir: {} }
  - name: model
    {{- toYaml $inference.modelVolume | nindent 4 }}
  {{- with $inference.adaptersVolume }}
  - name: adapters
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- if $inference.models }}
  - name: models
    configMap: { name: {{ include "penstock.name" .root }}-models }
  {{- end }}
{{- end }}

#!/usr/bin/env bash
# Lints the chart: helm lint, then kubeconform over what it renders with five sets of values.
# helm, kubeconform and the schemas come by Go's module proxy, into .cache. Without Go it says what
# it left out and does the rest. Usage: lint.sh [PYTHON]
set -euo pipefail
python=$(realpath -s "${1:-.venv/bin/python}")
cd "$(dirname "$0")"
cache=$(realpath -m ../.cache/k8s)
chart=penstock

HELM=helm.sh/helm/v3/cmd/helm@v3.22.0
KUBECONFORM=github.com/yannh/kubeconform/cmd/kubeconform@v0.8.0
KUBERNETES=k8s.io/kubernetes@v1.34.2
KUBERAY=github.com/ray-project/kuberay/ray-operator@v1.4.2
# Strimzi publishes its custom resource definitions in no Go, Python or Node package.
WITHOUT_SCHEMA=Kafka,KafkaNodePool,KafkaTopic

# The path of a tool: the one on PATH, else built into the cache, else nothing.
tool() {
  local name=$1 module=$2
  if command -v "$name"; then return; fi
  if [[ ! -x $cache/bin/$name ]] && command -v go >/dev/null; then
    echo "k8s: building $name (once)" >&2
    GOBIN=$cache/bin go install "$module" >&2
  fi
  if [[ -x $cache/bin/$name ]]; then echo "$cache/bin/$name"; fi
}

# The folder of a module's source.
module_dir() {
  (cd / && go mod download -json "$1") | sed -n 's/^\t"Dir": "\(.*\)",$/\1/p'
}

helm=$(tool helm "$HELM")
if [[ -z $helm ]]; then
  echo "k8s: neither helm nor go is installed, not linted"
  exit 0
fi
kube_version=${KUBERNETES##*@v}
"$helm" lint --strict --quiet --kube-version "$kube_version" "$chart" \
  2> >(grep -v 'found symbolic link' >&2)

rendered=$(mktemp -d)
trap 'rm -rf "$rendered"' EXIT
render() {
  local name=$1
  shift
  "$helm" template penstock "$chart" --kube-version "$kube_version" "$@" >"$rendered/$name.yaml" \
    2> >(grep -v 'found symbolic link' >&2)
}
render default
render own-kafka --set kafka.enabled=false --set kafka.bootstrap=kafka:9092
render gpu --set inference.gpu.enabled=true --set cost.database.existingSecret=ledger \
  --set ingest.extraSettings.MAX_WAITING=100 --set kafka.nodes=1 --set topics.replicationFactor=1
render retrain --set retrain.enabled=true --set retrain.signingKey.existingSecret=registry \
  --set inference.adaptersVolume.persistentVolumeClaim.claimName=adapters \
  --set retrain.policy.start.cooldown_s=600 --set retrain.database.existingSecret=registry
render models --set inference.apiKeys.existingSecret=upstreams \
  --set 'inference.models[0].name=triage,inference.models[0].kind=vllm' \
  --set 'inference.models[0].path=/models/current' \
  --set 'inference.models[1].name=hosted,inference.models[1].kind=upstream' \
  --set 'inference.models[1].base_url=https://api.example.com/v1,inference.models[1].model=large'

kubeconform=$(tool kubeconform "$KUBECONFORM")
if [[ -z $kubeconform ]] || ! command -v go >/dev/null; then
  echo "k8s: rendered, but without go there are no schemas: kubeconform not run"
  exit 0
fi
schemas=$cache/schemas-$kube_version
if [[ ! -f $schemas/.complete ]]; then
  echo "k8s: writing the schemas (once)"
  "$python" schemas.py "$(module_dir "$KUBERNETES")" "$(module_dir "$KUBERAY")" "$schemas"
  touch "$schemas/.complete"
fi
"$kubeconform" -strict -summary -skip "$WITHOUT_SCHEMA" \
  -schema-location "$schemas/{{ .ResourceKind }}{{ .KindSuffix }}.json" "$rendered"/*.yaml

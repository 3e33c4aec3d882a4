"""Writes JSON schemas for kubeconform from what Go modules carry, since it finds none offline.

Kubernetes' own kinds come from its OpenAPI document (k8s.io/kubernetes), those of KubeRay from its
custom resource definitions. As in the schemas that kubeconform fetches, objects take no fields
that they do not declare.

    python schemas.py KUBERNETES_DIR KUBERAY_DIR OUT_DIR
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import yaml

DEFINITIONS = "#/definitions/"
QUANTITY = "io.k8s.apimachinery.pkg.api.resource.Quantity"
INT_OR_STRING = {"oneOf": [{"type": "string"}, {"type": "integer"}]}


def strict(node: Any) -> Any:
    """A schema whose objects take only the properties that they declare.

    Where Kubernetes takes a number or a string, so does the schema.
    """
    if isinstance(node, list):
        return [strict(item) for item in node]
    if not isinstance(node, dict):
        return node
    if node.get("format") == "int-or-string" or node.get("x-kubernetes-int-or-string"):
        return INT_OR_STRING
    made = {key: strict(value) for key, value in node.items() if key != "format"}
    if isinstance(node.get("properties"), dict) and not node.get(
        "x-kubernetes-preserve-unknown-fields"
    ):
        made.setdefault("additionalProperties", False)
    return made


def kubernetes(module: Path) -> dict[str, Any]:
    """Schemas of Kubernetes' kinds by file name."""
    document = json.loads((module / "api/openapi-spec/swagger.json").read_text(encoding="utf-8"))
    definitions = strict(document["definitions"])
    definitions[QUANTITY] = {"oneOf": [{"type": "string"}, {"type": "number"}]}
    schemas = {}
    for name, definition in document["definitions"].items():
        for kind in definition.get("x-kubernetes-group-version-kind", ()):
            group = kind["group"].split(".")[0]
            parts = [kind["kind"].lower(), *([group] if group else []), kind["version"]]
            needed = reachable(name, definitions)
            schemas["-".join(parts)] = {
                "$ref": DEFINITIONS + name,
                "definitions": {each: definitions[each] for each in needed},
            }
    return schemas


def reachable(name: str, definitions: dict[str, Any]) -> set[str]:
    """The names of the definitions that one refers to, itself included."""
    found: set[str] = set()
    waiting = [name]
    while waiting:
        each = waiting.pop()
        if each not in found:
            found.add(each)
            waiting.extend(references(definitions[each]))
    return found


def references(node: Any) -> list[str]:
    """The names of the definitions that a schema names directly."""
    if isinstance(node, list):
        return [name for item in node for name in references(item)]
    if not isinstance(node, dict):
        return []
    own = [node["$ref"].removeprefix(DEFINITIONS)] if isinstance(node.get("$ref"), str) else []
    return own + [name for value in node.values() for name in references(value)]


def custom_resources(module: Path) -> dict[str, Any]:
    """Schemas of KubeRay's kinds by file name."""
    schemas = {}
    for path in sorted((module / "config/crd/bases").glob("*.yaml")):
        definition = yaml.load(path.read_text(encoding="utf-8"), yaml.CSafeLoader)["spec"]
        for version in definition["versions"]:
            group = definition["group"].split(".")[0]
            name = f"{definition['names']['kind'].lower()}-{group}-{version['name']}"
            schema = strict(version["schema"]["openAPIV3Schema"])
            # A definition leaves metadata to Kubernetes.
            schema["properties"]["metadata"] = {"type": "object"}
            schemas[name] = schema
    return schemas


def main() -> None:
    """Writes the schemas."""
    kubernetes_dir, kuberay_dir, out = (Path(argument) for argument in sys.argv[1:])
    out.mkdir(parents=True, exist_ok=True)
    for name, schema in {**kubernetes(kubernetes_dir), **custom_resources(kuberay_dir)}.items():
        (out / f"{name}.json").write_text(json.dumps(schema), encoding="utf-8")


if __name__ == "__main__":
    main()

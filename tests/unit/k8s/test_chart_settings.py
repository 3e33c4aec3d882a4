"""The chart sets only what services know: they refuse to start with anything else."""

import importlib
import json
import re
from pathlib import Path

import pytest
import yaml

from penstock.cli.settings import CliSettings
from penstock.settings import Settings
from penstock.topics import TOPICS

ROOT = Path(__file__).parents[3]
CHART = ROOT / "k8s" / "penstock"
TEMPLATES = "\n".join(
    path.read_text(encoding="utf-8") for path in sorted((CHART / "templates").iterdir())
)
VARIABLES = set(re.findall(r"\bPENSTOCK_[A-Z_]+[A-Z]\b", TEMPLATES))


def variables_of(settings):
    prefix = settings.model_config.get("env_prefix", "")
    return {
        str(field.validation_alias or f"{prefix}{name}").upper()
        for name, field in settings.model_fields.items()
    }


@pytest.mark.parametrize("service", ["ingest", "inference", "cost", "drift", "retrain"])
def test_every_variable_of_a_service_is_one_of_its_settings(service):
    module = pytest.importorskip(f"penstock_{service}.settings")
    (settings,) = [
        each
        for each in vars(module).values()
        if isinstance(each, type) and issubclass(each, Settings) and each is not Settings
    ]
    ours = {name for name in VARIABLES if name.startswith(f"PENSTOCK_{service.upper()}_")}
    assert ours
    assert ours - variables_of(settings) == set()


def test_the_rest_is_shared_or_the_commands():
    services = ("INGEST", "INFERENCE", "COST", "DRIFT", "RETRAIN")
    rest = {n for n in VARIABLES if not n.startswith(tuple(f"PENSTOCK_{s}_" for s in services))}
    assert rest - variables_of(Settings) - variables_of(CliSettings) == set()
    assert variables_of(Settings) <= rest


def test_every_size_of_a_topic_is_known_to_the_chart():
    sizes = set(re.findall(r'"(work|reply|one)"', TEMPLATES))
    assert sizes == {topic.partitions.value for topic in TOPICS}


def test_defaults_and_their_schema_name_the_same_values():
    values = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
    schema = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))

    def compare(value, node, path):
        if "properties" not in node:
            return
        assert set(value) == set(node["properties"]) - {"global"}, path
        for name, inner in value.items():
            compare(inner, node["properties"][name], f"{path}/{name}")

    compare(values, schema, "")


@pytest.mark.parametrize("name", ["routes.json", "prices.json"])
def test_the_charts_files_are_those_of_the_other_stacks(name):
    linked = CHART / "files" / name
    assert linked.resolve() == (ROOT / "compose" / name)
    assert json.loads(linked.read_text(encoding="utf-8"))


# Ray's own declarations, on import.
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_rayservice_builds_what_the_chart_names():
    paths = re.findall(r"import_path: (\S+):(\S+)", TEMPLATES)
    assert len(paths) == 2
    for module, builder in paths:
        assert callable(getattr(importlib.import_module(module), builder))

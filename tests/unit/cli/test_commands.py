"""Commands as people call them, as far as they go without a stack."""

import json

import pytest
from rich.console import Console
from typer.testing import CliRunner

from penstock.cli import feedback, requests, topics_reference
from penstock.cli.app import app
from penstock.cli.demo_tally import Claim, Numbers
from penstock.cli.demo_view import Progress, claims_table, report
from penstock.cli.run import FAILED, UNREACHABLE, CliError
from penstock.cli.settings import CliSettings
from penstock.cli.spend import spend_table
from penstock.cli.tail import as_json, as_text
from penstock.codec import encode
from penstock.records import Partition, Record
from penstock.settings import SettingsError
from penstock.topics import topic_of
from penstock.v1 import cost_service_pb2, request_pb2

NOWHERE = {
    "PENSTOCK_KAFKA_BOOTSTRAP": "127.0.0.1:1",
    "PENSTOCK_INGEST_GRPC_PORT": "1",
    "PENSTOCK_COST_GRPC_PORT": "1",
}
COMMANDS = [
    ["topics", "list"],
    ["topics", "apply"],
    ["topics", "describe"],
    ["topics", "docs"],
    ["topics", "helm"],
    ["routes", "apply"],
    ["routes", "set"],
    ["routes", "rollback"],
    ["routes", "list"],
    ["routes", "history"],
    ["dlq", "list"],
    ["dlq", "show"],
    ["dlq", "replay"],
    ["consumers", "list"],
    ["consumers", "halted"],
    ["consumers", "resume"],
    ["alerts", "list"],
    ["alerts", "show"],
    ["alerts", "ack"],
    ["alerts", "silence"],
    ["alerts", "watch"],
    ["replay"],
    ["publish"],
    ["tail"],
    ["generate"],
    ["cancel"],
    ["feedback"],
    ["models"],
    ["models", "scale"],
    ["models", "shed"],
    ["models", "restart"],
    ["models", "measures"],
    ["models", "end"],
    ["spend"],
    ["demo"],
]


def invoke(*arguments, stdin=None, env=NOWHERE):
    return CliRunner().invoke(app, list(arguments), input=stdin, env=env)


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_shows_an_example_of_the_command(command):
    result = invoke(*command, "--help", env={"COLUMNS": "200"})
    assert result.exit_code == 0
    assert f"Example:  penstock {' '.join(command)}" in result.stdout


@pytest.mark.parametrize(
    "command",
    [
        ["topics", "list"],
        ["topics", "apply"],
        ["topics", "describe", "responses"],
        ["routes", "list"],
        ["routes", "set", "triage", "--weight", "base=1"],
        ["routes", "rollback", "triage"],
        ["routes", "history", "triage"],
        ["models", "scale", "triage", "--replicas", "2"],
        ["models", "shed", "triage", "--share", "0.5"],
        ["models", "restart", "triage"],
        ["models", "measures"],
        ["models", "end", "m-1"],
        ["publish", "-m", "x"],
        ["tail", "responses"],
    ],
    ids=" ".join,
)
def test_an_unreachable_broker_is_named_with_the_remedy(command):
    result = invoke(*command)
    assert result.exit_code == UNREACHABLE
    assert "127.0.0.1:1 cannot be reached" in result.stderr
    assert "make up" in result.stderr
    assert "Traceback" not in result.output


@pytest.mark.parametrize(
    "command",
    [
        ["generate", "x"],
        ["generate", "x", "--stream"],
        ["models"],
        ["spend"],
        ["cancel", "id"],
        ["cancel", "--idempotency-key", "k"],
        ["feedback", "id", "--label", "a"],
    ],
    ids=" ".join,
)
def test_an_unreachable_door_is_an_error_of_one_line(command):
    result = invoke(*command)
    assert result.exit_code == UNREACHABLE
    assert "make up" in result.stderr
    assert "Traceback" not in result.output


@pytest.mark.parametrize(
    ("command", "stdin", "message"),
    [
        (["publish"], None, "nothing to publish"),
        (["publish", "-", "-m", "x"], "", "give either FILE or"),
        (["publish", "-"], '{"prompt": "a"}\n\n{"promp": "b"}\n', "line 3 is not a"),
        (["publish", "/nowhere/at.all"], None, "cannot be read"),
        (["routes", "apply", "-"], "[]", "at least one"),
        (["routes", "set", "triage", "--weight", "base"], None, "not VARIANT=WEIGHT"),
        (["topics", "describe", "nope"], None, "there are admitted"),
        (["tail", "nope"], None, "there are admitted"),
        (["dlq", "replay"], None, "either ID or --all"),
        (["dlq", "replay", "0-1", "--all"], None, "either ID or --all"),
        (["replay", "--from", "2026-01-02", "--to", "2026-01-01"], None, "--from must be before"),
        (["replay", "--from", "2026-01-01", "--to", "2026-01-02", "--run-id", "a b"], None, "run"),
        (["cancel"], None, "give either REQUEST_ID or"),
        (["cancel", "id", "--idempotency-key", "k"], None, "give either REQUEST_ID or"),
        (["feedback", "id"], None, "give one of --label"),
        (["models", "shed", "triage"], None, "give --priority-above, --share, or both"),
        (["models", "shed", "triage", "--share", "1.5"], None, "above 0 and up to 1"),
        (["models", "scale", "triage", "--replicas", "2", "--for", "13h"], None, "up to 12h"),
        (["models", "restart", "triage", "--for", "soon"], None, "no duration"),
        (["demo", "--tickets", "/nowhere/at.all"], None, "cannot be read"),
    ],
)
def test_a_mistake_is_told_before_anything_is_sent(command, stdin, message):
    result = invoke(*command, stdin=stdin)
    assert result.exit_code == FAILED
    assert message in result.stderr
    assert result.stdout == ""


def test_a_piped_request_may_hold_what_ends_lines_elsewhere():
    result = invoke("publish", "-", stdin='{"prompt": "a\u2028b\x85c"}\n')
    assert result.exit_code == UNREACHABLE, result.stderr


def test_a_setting_that_is_no_number_is_named():
    result = invoke("topics", "list", env={"PENSTOCK_INGEST_GRPC_PORT": "many"})
    assert result.exit_code == FAILED
    assert "PENSTOCK_INGEST_GRPC_PORT" in result.stderr


def test_settings_leave_other_services_alone(monkeypatch):
    monkeypatch.setenv("PENSTOCK_INFERENCE_MODEL", "x")
    monkeypatch.setenv("PENSTOCK_COST_GRPC_PORT", "7")
    assert CliSettings.load().cost_address == "127.0.0.1:7"
    monkeypatch.setenv("PENSTOCK_CLI_WORK_PARTITIONS", "0")
    with pytest.raises(SettingsError, match="PENSTOCK_CLI_WORK_PARTITIONS"):
        CliSettings.load()


def test_docs_prints_the_reference_and_nothing_else():
    assert invoke("topics", "docs").stdout == topics_reference.markdown()


@pytest.mark.parametrize(
    ("message", "role", "content"),
    [
        ("hello", "user", "hello"),
        ("system: be short", "system", "be short"),
        ("Note: urgent", "user", "Note: urgent"),
    ],
)
def test_a_turn_takes_its_role_from_the_prefix(message, role, content):
    (turn,) = requests.build(messages=[message]).messages
    assert (turn.role, turn.content) == (role, content)


def test_sampling_is_set_only_where_it_was_given():
    plain = requests.build(prompt="x")
    assert not plain.HasField("sampling")
    assert requests.build(prompt="x", temperature=0.0).sampling.HasField("temperature")


def test_feedback_takes_one_opinion_and_what_the_answer_was_worth():
    assert feedback.build("r", None, 0.0, None).WhichOneof("value") == "score"
    both = feedback.build("r", "a", None, None, value=0.0, unit="EUR")
    assert (both.label, both.HasField("business_value"), both.value_unit) == ("a", True, "EUR")
    assert feedback.build("r", None, None, None, value=-2.0).WhichOneof("value") is None
    for mistake in ({"label": "a", "score": 0.5}, {"label": "a", "unit": "EUR"}, {"unit": "EUR"}):
        with pytest.raises(CliError):
            feedback.build(
                **{"request_id": "r", **dict.fromkeys(("label", "score", "correction")), **mistake}
            )


def record(value, headers=()):
    return Record(Partition("penstock.requests", 2), 7, b"k", value, headers, 1_700_000_000_000)


def test_tail_decodes_by_the_table_and_shows_what_it_cannot():
    topic = topic_of("requests")
    out = encode(request_pb2.GenerateRequest(prompt="p"), topic="t", key="k", source="test")
    shown = as_json(record(out.value, out.headers), topic)
    assert shown["value"] == {"prompt": "p"}
    assert (shown["partition"], shown["offset"], shown["key"]) == (2, 7, "k")
    assert shown["time"] == "2023-11-14T22:13:20+00:00"
    assert shown["headers"]["ce_type"] == "penstock.v1.GenerateRequest"
    assert as_json(record(b"{broken"), topic)["value"] == "{broken"
    assert as_json(record(b"\xff\x00"), topic_of("dlq"))["value"] == "\ufffd\x00"
    assert "(tombstone)" in as_text(record(None), topic).plain


def test_progress_off_a_terminal_is_plain_lines(capsys):
    numbers = Numbers(8, 7, 6, 1.5, 40.0, 0.25, 1.25, None, None)
    with Progress(Console(width=200), 10) as progress:
        progress.show(numbers, "0.01")
        progress.show(numbers, "0.02")  # too soon for a second line
    line = capsys.readouterr().out
    assert line.count("\n") == 1
    assert "published 8 of 10  admitted 7  answered 6" in line
    assert "p50 / p99 250 ms / 1.25 s" in line
    assert "\x1b" not in line


def test_an_amount_is_never_cut_short(capsys):
    amount = "0.012345678901234567890123"
    answer = cost_service_pb2.GetSpendResponse(total_usd=amount, lines=10**9)
    group = answer.groups.add(tenant="a-tenant-with-a-long-name" * 3, variant="v" * 40)
    group.kinds.add(kind="USAGE_KIND_GENERATION", billed=True, amount_usd=amount)
    Console(width=80).print(spend_table(answer))
    assert capsys.readouterr().out.count(amount) == 2


def test_spend_is_shown_by_kind_with_what_hits_avoided_and_what_nobody_pays(capsys):
    answer = cost_service_pb2.GetSpendResponse(
        total_usd="3", lines=4, avoided_usd="5", unbilled_usd="0.25"
    )
    group = answer.groups.add(tenant="acme", model="triage", variant="v1", price_versions=["1"])
    group.kinds.add(kind="USAGE_KIND_GENERATION", billed=True, amount_usd="3", lines=3)
    group.kinds.add(
        kind="USAGE_KIND_CACHE_HIT", billed=True, amount_usd="0", avoided_usd="5", lines=1
    )
    group.kinds.add(kind="USAGE_KIND_SHADOW", amount_usd="0.25", lines=2)
    group.kinds.add(kind=77, billed=True, amount_usd="0", lines=9)
    Console(width=160).print(spend_table(answer))
    shown = [line.replace("│", " ").split() for line in capsys.readouterr().out.splitlines()]
    tokens = ["0", "0"]
    assert ["acme", "triage", "v1", "generation", "1", "3", *tokens, "3"] in shown
    assert ["acme", "triage", "v1", "cache", "hit", "1", "1", *tokens, "0", "5"] in shown
    assert ["acme", "triage", "v1", "shadow", "(not", "billed)", "1", "2", *tokens, "0.25"] in shown
    assert ["acme", "triage", "v1", "kind", "77", "1", "9", *tokens, "0"] in shown
    assert ["billed", "4", "3", "5"] in shown
    assert any(line[:3] == ["Not", "billed:", "0.25"] for line in shown)


def test_report_passes_only_when_every_claim_holds():
    numbers = Numbers(1, 1, 1, 1.0, 1.0, None, None, None, None)
    good, bad = Claim("a", True, "1"), Claim("b", False, "[0]")
    assert report("r", "t", numbers, [good], "1")["passed"]
    result = report("r", "t", numbers, [good, bad], None)
    assert not result["passed"]
    assert json.loads(json.dumps(result))["claims"][1]["found"] == "[0]"
    assert claims_table([good, bad]).row_count == 2

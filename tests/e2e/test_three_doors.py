"""A request by each door, with the client that its users have: kcat, grpcurl, openai."""

from __future__ import annotations

import json
import shutil
import subprocess
import uuid
from collections.abc import Iterator

import openai
import pytest
from openai import OpenAI

from penstock_native.stack import Stack
from tests.e2e.support import TICKET

# The first of a session starts the stack, beside another file's.
pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

needs_kcat = pytest.mark.skipif(not shutil.which("kcat"), reason="kcat is not installed")
needs_grpcurl = pytest.mark.skipif(not shutil.which("grpcurl"), reason="grpcurl is not installed")

FIELDS = {"category", "priority", "product"}


def kcat(stack: Stack, *arguments: str, stdin: bytes = b"") -> bytes:
    """kcat against the stack's broker; read committed, as every reader of responses must."""
    return subprocess.run(
        ["kcat", "-q", "-b", stack.env["PENSTOCK_KAFKA_BOOTSTRAP"], *arguments],
        input=stdin,
        capture_output=True,
        timeout=120,
        check=True,
    ).stdout


def consume_until(stack: Stack, key: str) -> list[dict[str, object]]:
    """Every response with an idempotency key, once there is one."""
    for _ in range(60):
        lines = kcat(
            stack, "-C", "-t", "penstock.responses", "-e", "-X", "isolation.level=read_committed"
        ).splitlines()
        found = [json.loads(line) for line in lines if line.startswith(b"{")]
        mine = [response for response in found if response.get("idempotency_key") == key]
        if mine:
            return mine
    raise AssertionError(f"no response for {key}")


@needs_kcat
def test_json_without_headers_is_answered_in_json(stack: Stack) -> None:
    key = uuid.uuid4().hex
    request = {
        "messages": [{"role": "user", "content": TICKET}],
        "idempotency_key": key,
    }
    kcat(stack, "-P", "-t", "penstock.requests", stdin=json.dumps(request).encode())
    (response,) = consume_until(stack, key)
    assert response["outcome"] == "OUTCOME_ANSWERED"
    assert set(json.loads(str(response["text"]))) == FIELDS


def grpcurl(stack: Stack, *arguments: str) -> subprocess.CompletedProcess[str]:
    address = f"127.0.0.1:{stack.env['PENSTOCK_INGEST_GRPC_PORT']}"
    before = [argument for argument in arguments if argument.startswith("-") or " " in argument]
    after = [argument for argument in arguments if argument not in before]
    return subprocess.run(
        ["grpcurl", "-plaintext", *before, address, *after],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@needs_grpcurl
def test_reflection_lists_the_services(stack: Stack) -> None:
    listed = grpcurl(stack, "list").stdout.split()
    assert {"penstock.v1.Inference", "grpc.health.v1.Health"} <= set(listed)


@needs_grpcurl
def test_a_unary_call_answers(stack: Stack) -> None:
    body = json.dumps({"messages": [{"role": "user", "content": TICKET}]})
    result = grpcurl(stack, "-d", body, "penstock.v1.Inference/Generate")
    response = json.loads(result.stdout)
    assert response["outcome"] == "OUTCOME_ANSWERED"
    assert set(json.loads(response["text"])) == FIELDS


@needs_grpcurl
def test_a_streamed_call_sends_text_and_then_the_response(stack: Stack) -> None:
    body = json.dumps({"messages": [{"role": "user", "content": TICKET}]})
    result = grpcurl(stack, "-d", body, "penstock.v1.Inference/GenerateStream")
    decoder, text, events = json.JSONDecoder(), result.stdout.strip(), []
    while text:
        event, end = decoder.raw_decode(text)
        events.append(event)
        text = text[end:].strip()
    *chunks, last = events
    assert len(chunks) > 1
    assert "".join(event["chunk"]["text"] for event in chunks) == last["response"]["text"]


@needs_grpcurl
@pytest.mark.parametrize(
    ("request_body", "code", "field"),
    [
        ({"prompt": " "}, "InvalidArgument", "prompt"),
        ({"prompt": "a", "model": "none"}, "NotFound", "model"),
        ({"prompt": "a", "timeout": "-5s"}, "InvalidArgument", "timeout"),
        ({"prompt": "word " * 3000}, "InvalidArgument", "prompt"),
    ],
)
def test_a_bad_call_names_its_field(
    stack: Stack, request_body: dict[str, object], code: str, field: str
) -> None:
    result = grpcurl(stack, "-d", json.dumps(request_body), "penstock.v1.Inference/Generate")
    assert result.returncode != 0
    assert f"Code: {code}" in result.stderr
    assert field in result.stderr


@pytest.fixture
def client(stack: Stack) -> Iterator[OpenAI]:
    port = stack.env["PENSTOCK_INGEST_HTTP_PORT"]
    with OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none", max_retries=0) as made:
        yield made


def test_openai_lists_the_model(client: OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["triage"]


def test_openai_chat_answers(client: OpenAI) -> None:
    answer = client.chat.completions.create(
        model="triage", messages=[{"role": "user", "content": TICKET}]
    )
    assert set(json.loads(answer.choices[0].message.content or "")) == FIELDS
    assert answer.usage is not None
    assert answer.usage.completion_tokens > 0
    assert answer.choices[0].finish_reason == "stop"


def test_openai_chat_streams_the_same_text(client: OpenAI) -> None:
    whole = client.chat.completions.create(
        model="triage", messages=[{"role": "user", "content": TICKET}]
    )
    stream = client.chat.completions.create(
        model="triage",
        messages=[{"role": "user", "content": TICKET}],
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(stream)
    pieces = [c.choices[0].delta.content or "" for c in chunks if c.choices]
    assert len([piece for piece in pieces if piece]) > 1
    assert "".join(pieces) == whole.choices[0].message.content
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens > 0


def test_openai_completions_answer_and_stream(client: OpenAI) -> None:
    whole = client.completions.create(model="triage", prompt="{", max_tokens=8)
    stream = client.completions.create(model="triage", prompt="{", max_tokens=8, stream=True)
    assert "".join(c.choices[0].text for c in stream if c.choices) == whole.choices[0].text


def test_a_schema_constrains_the_answer(client: OpenAI) -> None:
    schema = {
        "type": "object",
        "properties": {"ok": {"type": "boolean"}},
        "required": ["ok"],
        "additionalProperties": False,
    }
    answer = client.chat.completions.create(
        model="triage",
        messages=[{"role": "user", "content": TICKET}],
        response_format={"type": "json_schema", "json_schema": {"name": "ok", "schema": schema}},
        max_tokens=32,
    )
    assert set(json.loads(answer.choices[0].message.content or "")) == {"ok"}


@pytest.mark.parametrize(
    ("change", "error", "param"),
    [
        ({"messages": []}, openai.BadRequestError, "messages"),
        ({"messages": [{"role": "user", "content": "word " * 3000}]}, openai.BadRequestError, ""),
        ({"model": "none"}, openai.NotFoundError, "model"),
        ({"temperature": 9}, openai.BadRequestError, "temperature"),
        ({"n": 2}, openai.BadRequestError, "n"),
    ],
)
def test_openai_error_classes_name_the_parameter(
    client: OpenAI, change: dict[str, object], error: type[openai.APIStatusError], param: str
) -> None:
    request = {"model": "triage", "messages": [{"role": "user", "content": TICKET}], **change}
    with pytest.raises(error) as raised:
        client.chat.completions.create(**request)  # type: ignore[call-overload]
    assert param in (raised.value.param or "")
    test_openai_chat_answers(client)  # the next one is served

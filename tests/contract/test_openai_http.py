"""The official client understands the HTTP door: answers, streams and errors."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import openai
import pytest
from openai import AsyncOpenAI

from penstock_ingest.health.board import Key

HELLO: list[Any] = [{"role": "user", "content": "hello"}]
ANSWER = "You said: hello. That is all there is to say."


def said(text: str) -> list[Any]:
    return [{"role": "user", "content": text}]


@pytest.fixture
async def client(port: int) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(
        base_url=f"http://127.0.0.1:{port}/v1", api_key="none", max_retries=0
    ) as client:
        yield client


async def test_a_chat_is_answered(client: AsyncOpenAI, platform: Any) -> None:
    answer = await client.chat.completions.create(
        model="triage",
        messages=[{"role": "developer", "content": "Be kind."}, *HELLO],
        temperature=0.5,
        max_completion_tokens=20,
        stop="END",
        seed=7,
        metadata={"team": "support"},
        user="somebody",
        store=True,
        n=1,
        extra_headers={"X-Penstock-Tenant": "acme", "Idempotency-Key": "k-1"},
    )
    choice = answer.choices[0]
    assert (choice.message.content, choice.finish_reason) == (ANSWER, "stop")
    assert choice.message.role == "assistant"
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.total_tokens) == (5, 16)
    assert answer.usage.prompt_tokens_details is not None
    assert answer.usage.prompt_tokens_details.cached_tokens == 2
    assert answer.model == "triage"
    (admitted,) = platform.admitted
    assert answer.id == admitted.request_id == answer._request_id
    request = admitted.request
    assert [m.role for m in request.messages] == ["system", "user"]
    assert (request.tenant, request.idempotency_key) == ("acme", "k-1")
    assert dict(request.labels) == {"team": "support"}
    sampling = request.sampling
    assert (sampling.temperature, sampling.max_tokens, sampling.seed) == (0.5, 20, 7)
    assert list(sampling.stop) == ["END"]


async def test_content_may_come_in_parts_and_a_schema_goes_along(
    client: AsyncOpenAI, platform: Any
) -> None:
    await client.chat.completions.create(
        model="triage",
        messages=[
            {"role": "user", "content": [{"type": "text", "text": t} for t in ("hel", "lo")]}
        ],
        response_format={
            "type": "json_schema",
            "json_schema": {"name": "answer", "schema": {"type": "object", "required": ["a"]}},
        },
    )
    (admitted,) = platform.admitted
    assert admitted.request.messages[0].content == "hello"
    assert admitted.request.response_schema["required"][0] == "a"


async def test_a_completion_is_answered(client: AsyncOpenAI) -> None:
    answer = await client.completions.create(model="triage", prompt="hello")
    assert (answer.choices[0].text, answer.object) == (ANSWER, "text_completion")


@pytest.mark.parametrize("text", ["hello", "again", "lossy"])
async def test_a_stream_brings_all_of_the_text_once(client: AsyncOpenAI, text: str) -> None:
    stream = await client.chat.completions.create(
        model="triage",
        messages=said(text),
        stream=True,
        stream_options={"include_usage": True},
    )
    events = [event async for event in stream]
    pieces = [e.choices[0].delta.content or "" for e in events if e.choices]
    assert "".join(pieces) == f"You said: {text}. That is all there is to say."
    assert len([p for p in pieces if p]) > 1
    assert events[0].choices[0].delta.role == "assistant"
    assert [e.choices[0].finish_reason for e in events if e.choices][-1] == "stop"
    assert events[-1].usage is not None
    assert events[-1].usage.completion_tokens == 11
    assert len({e.id for e in events}) == 1
    assert {e.model for e in events} == {"triage"}


async def test_a_text_stream_without_usage(client: AsyncOpenAI) -> None:
    stream = await client.completions.create(model="triage", prompt="hello", stream=True)
    events = [event async for event in stream]
    assert "".join(e.choices[0].text for e in events) == ANSWER
    assert all(e.usage is None for e in events)


async def test_the_frames_are_server_sent_events(port: int) -> None:
    body = {"messages": HELLO, "stream": True}
    status, raw = await post(port, "/v1/chat/completions", json.dumps(body).encode())
    frames = raw.split("\n\n")
    assert status == 200
    assert frames[-2:] == ["data: [DONE]", ""]
    assert all(frame.startswith("data: {") for frame in frames[:-2])


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "bot", "content": "x"}]}, "messages[0].role"),
        ({"messages": [*HELLO, {"role": "user", "content": ""}]}, "messages[1].content"),
        ({"messages": "hello"}, "messages"),
        ({"temperature": 3}, "temperature"),
        ({"temperature": "warm"}, "temperature"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 2**40}, "max_tokens"),
        ({"top_p": 0}, "top_p"),
        ({"n": 2}, "n"),
        ({"logprobs": True}, "logprobs"),
        ({"tools": [{"type": "function"}]}, "tools"),
        ({"logit_bias": {"1": 2}}, "logit_bias"),
        ({"no_such_thing": 1}, "no_such_thing"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"response_format": {"type": "xml"}}, "response_format.type"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema.schema"),
        ({"metadata": {str(n): "x" for n in range(20)}}, "metadata"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, None),
        ({"messages": said("context")}, "prompt"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_a_fault_is_a_bad_request_that_names_the_parameter(
    client: AsyncOpenAI, changes: dict[str, Any], param: str | None, stream: bool
) -> None:
    if stream and "stream_options" in changes:
        pytest.skip("allowed with a stream")
    body = {"messages": HELLO, **changes}
    with pytest.raises(openai.BadRequestError) as caught:
        await client.chat.completions.create(
            model="triage", messages=HELLO, stream=stream, extra_body=body
        )
    assert caught.value.type == "invalid_request_error"
    assert caught.value.message
    if param is None:
        assert caught.value.param is not None
        assert caught.value.param.startswith("messages[0].content")
    else:
        assert caught.value.param == param


FORMAT = '"response_format":{"type":"json_schema","json_schema":{"schema":%s}}'


@pytest.mark.parametrize(
    ("more", "param"),
    [
        (FORMAT % ('{"a":' * 30 + "1" + "}" * 30), "response_format"),
        (FORMAT % ('{"a":' * 500 + "1" + "}" * 500), "response_format.json_schema.schema"),
        (FORMAT % '{"maximum":1e999}', "response_format"),
        (FORMAT % f'{{"maximum":1{"0" * 400}}}', "response_format.json_schema.schema"),
        (FORMAT % '{"maximum":NaN}', "body"),
        ('"metadata":{"cut":"\\ud83d"}', "body"),
        (f'"seed":1{"0" * 400}', "seed"),
    ],
)
async def test_what_no_client_means_is_a_bad_request_and_no_fault_of_ours(
    port: int, more: str, param: str
) -> None:
    body = f'{{"model":"triage","messages":{json.dumps(HELLO)},{more}}}'
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:
        found = await http.post("/v1/chat/completions", content=body)
        assert found.status_code == 400, found.text
        assert found.json()["error"]["param"] == param
        huge = f'{{"request_id":"r","score":1{"0" * 400}}}'
        assert (await http.post("/v1/feedback", content=huge)).status_code == 400


@pytest.mark.parametrize(
    "body",
    [b'{"model":"triage","prompt":"\xed\xa0\x80"}', '{"prompt":"\\ud83d"}'.encode("utf-16")],
)
async def test_a_body_in_another_encoding_is_refused(port: int, body: bytes) -> None:
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:
        found = await http.post("/v1/chat/completions", content=body)
    assert found.status_code == 400
    assert "utf-8" in found.json()["error"]["message"]


async def test_whole_characters_may_be_escaped(port: int) -> None:
    body = '{"model":"triage","messages":[{"role":"user","content":"\\ud83d\\ude00"}]}'
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:
        assert (await http.post("/v1/chat/completions", content=body)).status_code == 200


async def test_headers_are_checked_too(client: AsyncOpenAI) -> None:
    for name, value in (
        ("X-Penstock-Timeout", "soon"),
        ("X-Penstock-Timeout", "-1"),
        ("X-Penstock-Tenant", "a b"),
    ):
        with pytest.raises(openai.BadRequestError) as caught:
            await client.chat.completions.create(
                model="triage", messages=HELLO, extra_headers={name: value}
            )
        assert caught.value.param == name


async def test_an_unknown_model_is_not_found(client: AsyncOpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="there are: triage") as caught:
        await client.chat.completions.create(model="gpt-9", messages=HELLO)
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")
    with pytest.raises(openai.NotFoundError):
        await client.models.retrieve("gpt-9")


@pytest.mark.parametrize("size", [60_000, 5_000_000])
async def test_a_large_body_is_refused_before_it_is_read(client: AsyncOpenAI, size: int) -> None:
    with pytest.raises(openai.APIStatusError) as caught:
        await client.chat.completions.create(model="triage", messages=said("x" * size))
    assert caught.value.status_code == 413
    assert caught.value.code == "too_large"


async def test_a_large_body_without_a_length_is_refused(port: int) -> None:
    async def parts() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield b"x" * 1000

    body = b"".join([b"%x\r\n%s\r\n" % (len(p), p) async for p in parts()]) + b"0\r\n\r\n"
    status, raw = await post(port, "/v1/chat/completions", body, chunked=True)
    assert status == 413
    assert json.loads(raw)["error"]["code"] == "too_large"


async def test_the_platforms_faults_are_server_errors(client: AsyncOpenAI) -> None:
    for text in ("unavailable", "break", "unwritten"):
        with pytest.raises(openai.InternalServerError) as caught:
            await client.chat.completions.create(model="triage", messages=said(text))
        assert caught.value.type == "server_error"
        retry = caught.value.response.headers["x-should-retry"]
        assert retry == ("false" if text == "break" else "true")


async def test_too_many_callers_are_rate_limited(client: AsyncOpenAI, platform: Any) -> None:
    callers = [platform.waiters.attach(f"other {n}", 60) for n in range(8)]
    with pytest.raises(openai.RateLimitError):
        await client.chat.completions.create(model="triage", messages=HELLO)
    for caller in callers:
        with caller:
            pass
    assert await client.chat.completions.create(model="triage", messages=HELLO)


@pytest.mark.parametrize(("text", "code"), [("break", "internal"), ("diverge", "stream_diverged")])
async def test_a_failure_in_the_middle_ends_the_stream_with_an_error(
    client: AsyncOpenAI, text: str, code: str
) -> None:
    stream = await client.chat.completions.create(model="triage", messages=said(text), stream=True)
    got = ""
    with pytest.raises(openai.APIError) as caught:  # noqa: PT012 - the loop raises
        async for event in stream:
            got += event.choices[0].delta.content or ""
    assert got.startswith("You said: ")
    assert caught.value.code == code


async def test_a_timeout_is_an_answer_too(client: AsyncOpenAI, platform: Any) -> None:
    with pytest.raises(openai.InternalServerError) as caught:
        await client.chat.completions.create(
            model="triage", messages=said("silent"), extra_headers={"X-Penstock-Timeout": "0.05"}
        )
    assert caught.value.status_code == 504
    assert caught.value.code == "deadline_exceeded"
    (admitted,) = platform.admitted
    life = admitted.deadline.ToMilliseconds() - admitted.published_at.ToMilliseconds()
    assert life == pytest.approx(50, abs=2)


async def test_the_clients_patience_bounds_the_deadline(client: AsyncOpenAI, platform: Any) -> None:
    await client.chat.completions.create(model="triage", messages=HELLO, timeout=3.0)
    (admitted,) = platform.admitted
    life = admitted.deadline.ToMilliseconds() - admitted.published_at.ToMilliseconds()
    assert life == pytest.approx(3000, abs=2)


async def test_a_client_that_hangs_up_is_waited_for_no_longer(
    client: AsyncOpenAI, platform: Any
) -> None:
    for stream in (False, True):
        task = asyncio.create_task(
            client.chat.completions.create(model="triage", messages=said("silent"), stream=stream)
        )
        while not len(platform.waiters):
            await asyncio.sleep(0.01)
        assert len(platform.waiters) == 1
        task.cancel()
        # Until the test's time is up, if it is waited for.
        while len(platform.waiters):
            await asyncio.sleep(0.01)


async def test_a_key_that_is_repeated_runs_once(client: AsyncOpenAI, platform: Any) -> None:
    async def ask(tenant: str) -> str:
        answer = await client.chat.completions.create(
            model="triage",
            messages=HELLO,
            extra_headers={"Idempotency-Key": "k", "X-Penstock-Tenant": tenant},
        )
        return answer.id

    first, twin = await asyncio.gather(ask("a"), ask("a"))
    later = await ask("a")
    other = await ask("b")
    assert first == twin == later != other
    assert len(platform.admitted) == 2


async def test_a_request_that_was_not_written_can_be_repeated(
    client: AsyncOpenAI, platform: Any
) -> None:
    headers = {"Idempotency-Key": "k"}
    with pytest.raises(openai.InternalServerError):
        await client.chat.completions.create(
            model="triage", messages=said("unwritten"), extra_headers=headers
        )
    assert await client.chat.completions.create(
        model="triage", messages=HELLO, extra_headers=headers
    )


async def test_feedback_comes_by_http_too(client: AsyncOpenAI, port: int, platform: Any) -> None:
    answer = await client.chat.completions.create(
        model="triage", messages=HELLO, extra_headers={"X-Penstock-Tenant": "acme"}
    )
    body = {"request_id": answer.id, "label": "billing", "business_value": 2.5}
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as door:
        headers = {"X-Penstock-Tenant": "acme"}
        sent = await door.post("/v1/feedback", json=body, headers=headers)
        rival = await door.post("/v1/feedback", json=body)
        odd = await door.post("/v1/feedback", json={**body, "labell": "x"}, headers=headers)
        bare = await door.post("/v1/feedback", json={"request_id": answer.id}, headers=headers)
    ((_, kept),) = platform.feedback
    assert sent.json() == {"id": kept.feedback_id, "object": "feedback"}
    assert (kept.tenant, kept.label, kept.business_value) == ("acme", "billing", 2.5)
    assert (rival.status_code, rival.json()["error"]["param"]) == (404, "request_id")
    assert (odd.status_code, "labell" in odd.json()["error"]["message"]) == (400, True)
    assert (bare.status_code, bare.json()["error"]["param"]) == (400, "value")


async def test_models_are_listed(client: AsyncOpenAI, platform: Any) -> None:
    platform.route("org/other")
    assert [m.id async for m in client.models.list()] == ["org/other", "triage"]
    assert (await client.models.retrieve("org/other")).owned_by == "penstock"


async def test_health_tells_why(port: int, platform: Any) -> None:
    assert (await post(port, "/health/live", method="GET"))[0] == 200
    assert (await post(port, "/health/ready", method="GET"))[0] == 200
    platform.desk.closed = "Kafka does not answer"
    assert (await post(port, "/health/live", method="GET"))[0] == 200
    status, raw = await post(port, "/health/ready", method="GET")
    assert (status, json.loads(raw)["reason"]) == (503, "Kafka does not answer")
    status, raw = await post(port, "/v1/completions", b'{"prompt":"x"}')
    assert (status, json.loads(raw)["error"]["code"]) == (503, "unavailable")


async def test_readiness_names_models_and_variants(port: int, platform: Any) -> None:
    status, raw = await post(port, "/health/ready", method="GET")
    body = json.loads(raw)
    assert (status, body["status"]) == (200, "ready")
    variant = body["models"]["triage"]["variants"]["triage-base"]
    assert variant["ready"] is True
    assert variant["last_success"].endswith("+00:00")
    assert (await post(port, "/health/ready/triage", method="GET"))[0] == 200
    assert (await post(port, "/health/ready/none", method="GET"))[0] == 404
    later = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=1)
    for _ in range(3):
        platform.board.failed(Key("triage", "triage-base"), "no reply", later, 0.0)
    status, raw = await post(port, "/health/ready", method="GET")
    assert (status, json.loads(raw)["reason"]) == (503, "no answer from triage")
    status, raw = await post(port, "/health/ready/triage", method="GET")
    assert (status, json.loads(raw)["variants"]["triage-base"]["last_error"]) == (503, "no reply")


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/v1/chat/completions", b"{not json", 400),
        ("POST", "/v1/chat/completions", b"[]", 400),
        ("POST", "/v1/chat/completions", b"", 400),
        ("POST", "/v1/chat/completions", b"[" * 40_000, 400),
        ("POST", "/v1/completions", b'{"prompt":["a","b"]}', 400),
        ("POST", "/v1/completions", b'{"prompt":[1,2]}', 400),
        ("POST", "/v1/completions", b"{}", 400),
        ("POST", "/v1/embeddings", b"{}", 404),
        ("GET", "/v1/chat/completions", b"", 405),
    ],
)
async def test_every_refusal_has_openais_body(
    port: int, method: str, path: str, body: bytes, status: int
) -> None:
    got, raw = await post(port, path, body, method=method)
    error = json.loads(raw)["error"]
    assert got == status
    assert error["type"] == "invalid_request_error"
    assert error["message"]
    assert set(error) == {"message", "type", "param", "code"}


async def post(
    port: int, path: str, body: bytes = b"", *, method: str = "POST", chunked: bool = False
) -> tuple[int, str]:
    """A bare exchange, as no client would tidy it up."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    length = "transfer-encoding: chunked" if chunked else f"content-length: {len(body)}"
    head = f"{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{length}\r\n\r\n"
    writer.write(head.encode() + body)
    await writer.drain()
    raw = await reader.read()
    writer.close()
    head, _, text = raw.decode().partition("\r\n\r\n")
    if "transfer-encoding: chunked" in head.lower():
        parts = text.split("\r\n")
        text = "".join(parts[1::2])
    return int(head.split(" ")[1]), text

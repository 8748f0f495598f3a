"""`openai` from PyPI against our `/v1/realtime`: a spoken conversation on real audio, in which every event of the
server passes the strict types of the package."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import numpy as np
import pytest
import pytest_asyncio
from openai import AsyncOpenAI, ConflictError, NotFoundError
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from switchroom.engine.match import digits_in
from switchroom.queue import NewCall, Rules
from switchroom.realtime import g711
from switchroom.realtime.audio import resample

from .browser import Browser
from .conftest import Speech
from .house import KEY, ServedHouse
from .sdk import STRICT, Sdk

pytestmark = pytest.mark.asyncio(loop_scope="module")
SPOKEN = [
    "response.created",
    "response.output_item.added",
    "conversation.item.added",
    "response.content_part.added",
    "response.output_audio.done",
    "response.output_audio_transcript.done",
    "response.content_part.done",
    "conversation.item.done",
    "response.output_item.done",
    "response.done",
]


@pytest_asyncio.fixture(loop_scope="module")
async def sdk(house: ServedHouse) -> AsyncIterator[Sdk]:
    client = AsyncOpenAI(api_key=KEY, base_url=f"{house.url}/v1", max_retries=0)
    async with client.realtime.connect(model="support") as connection:
        sdk = Sdk(connection)
        await sdk.until("conversation.created")
        assert sdk.kinds() == ["session.created", "conversation.created"]
        yield sdk
    await client.close()


async def test_a_spoken_conversation(sdk: Sdk, house: ServedHouse, speech: Speech) -> None:
    await sdk.connection.session.update(
        session={
            "type": "realtime",
            "audio": {
                "input": {"transcription": {"model": "whisper-1"}, "turn_detection": {"silence_duration_ms": 400}}
            },
        }
    )
    updated = (await sdk.until("session.updated")).session
    assert updated.audio.input.turn_detection.silence_duration_ms == 400
    assert updated.audio.input.turn_detection.prefix_padding_ms == 300  # what was left out stays
    assert updated.audio.output.voice == "marin" and updated.model == "support"

    await sdk.connection.response.create(response={"metadata": {"why": "greeting"}})
    began = len(sdk.seen)
    done = await sdk.until("response.done")
    assert sdk.kinds(began) == SPOKEN
    assert done.response.status == "completed" and done.response.metadata == {"why": "greeting"}
    assert done.response.output[0].content[0].transcript == "Hello."
    await asyncio.sleep(sdk.seconds(began) + 0.5)  # as long as a client plays it

    began = len(sdk.seen)
    await sdk.speak(speech("invoice"))
    words = await sdk.until("conversation.item.input_audio_transcription.completed")
    assert "invoice" in words.transcript.lower() and words.usage.seconds > 1
    assert sdk.kinds(began) == [
        "input_audio_buffer.speech_started",
        "input_audio_buffer.speech_stopped",
        "input_audio_buffer.committed",
        "conversation.item.added",
        "conversation.item.done",
        "conversation.item.input_audio_transcription.delta",
        "conversation.item.input_audio_transcription.completed",
    ]
    began = len(sdk.seen)
    done = await sdk.until("response.done")
    assert sdk.kinds(began) == SPOKEN
    assert "order number" in done.response.output[0].content[0].transcript
    assert np.abs(np.frombuffer(sdk.sound(began), dtype="<i2")).max() > 3000  # it is speech
    await asyncio.sleep(1)

    # The caller speaks into the answer: it stops, and what was not heard is forgotten.
    began = len(sdk.seen)
    spoken = done.response.output[0]
    await sdk.speak(speech("operator"))
    await sdk.until("input_audio_buffer.speech_started")
    await sdk.connection.conversation.item.truncate(item_id=spoken.id, content_index=0, audio_end_ms=700)
    assert (await sdk.until("conversation.item.truncated")).audio_end_ms == 700
    await sdk.connection.conversation.item.retrieve(item_id=spoken.id)
    item = (await sdk.until("conversation.item.retrieved")).item
    assert spoken.content[0].transcript.startswith(item.content[0].transcript)
    assert 0 < len(item.content[0].transcript) < len(spoken.content[0].transcript)
    assert len(base64.b64decode(item.content[0].audio)) == pytest.approx(0.7 * 24_000 * 2, rel=0.02)
    await sdk.until("response.done")
    with pytest.raises(ConnectionClosed) as closed:  # the flow has reached its end: so has the call
        await sdk.until("no event")
    assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1000, "the flow reached its end")

    record = await house.record("support")
    assert (record.state, record.end_reason) == ("FINISHED", "completed")
    lines = [(line.role, line.interrupted) for line in record.transcript]
    assert lines == [("agent", False), ("caller", False), ("agent", True), ("caller", False), ("agent", False)]
    assert record.transcript[2].text == item.content[0].transcript
    assert [timing.turn for timing in record.timings] == [1, 2, 3]
    assert record.recording is not None and record.recording.duration_ms > 3000


async def test_push_to_talk_over_a_telephones_codec(sdk: Sdk, speech: Speech) -> None:
    audio = {"format": {"type": "audio/pcmu"}}
    await sdk.connection.session.update(
        session={
            "type": "realtime",
            "audio": {"input": {**audio, "turn_detection": None, "transcription": {}}, "output": audio},
        }
    )
    updated = (await sdk.until("session.updated")).session
    assert updated.audio.input.turn_detection is None and updated.audio.output.format.type == "audio/pcmu"
    pcm = np.frombuffer(speech("order-number", silence_s=0.1), dtype="<i2")
    await sdk.speak(g711.encode(await asyncio.to_thread(resample, pcm, 24_000, 8_000), "ulaw"), step=1_600)
    began = len(sdk.seen)
    await sdk.connection.input_audio_buffer.commit()
    await sdk.connection.response.create()
    done = await sdk.until("response.done")
    kinds = sdk.kinds(began)
    assert kinds[:3] == ["input_audio_buffer.committed", "conversation.item.added", "conversation.item.done"]
    assert "input_audio_buffer.speech_started" not in kinds
    assert "4 1 7 2" in done.response.output[0].content[0].transcript
    assert np.abs(g711.decode(sdk.sound(), "ulaw")).max() > 3000
    await sdk.connection.input_audio_buffer.commit()
    error = await sdk.error()
    assert error.code == "input_audio_buffer_commit_empty"
    await sdk.connection.input_audio_buffer.clear()
    await sdk.until("input_audio_buffer.cleared")


async def test_words_and_functions(sdk: Sdk) -> None:
    weather = {
        "type": "function",
        "name": "get_weather",
        "description": "The weather in a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    }
    await sdk.connection.session.update(
        session={"type": "realtime", "output_modalities": ["text"], "tools": [weather], "instructions": "Be short."}
    )
    await sdk.until("session.updated")
    asked = {
        "type": "message",
        "role": "user",
        "content": [{"type": "input_text", "text": "What is the weather in Paris?"}],
    }
    await sdk.connection.conversation.item.create(item={**asked, "id": "my-own-id"}, previous_item_id="root")
    assert (await sdk.until("conversation.item.added")).item.id == "my-own-id"
    await sdk.until("conversation.item.done")
    began = len(sdk.seen)
    await sdk.connection.response.create()
    called = await sdk.until("response.function_call_arguments.done")
    assert called.name == "get_weather" and "Paris" in called.arguments
    done = await sdk.until("response.done")
    assert sdk.kinds(began) == [
        "response.created",
        "response.output_item.added",
        "conversation.item.added",
        "response.function_call_arguments.delta",
        "response.function_call_arguments.done",
        "conversation.item.done",
        "response.output_item.done",
        "response.done",
    ]
    assert done.response.output[0].type == "function_call" and done.response.output[0].call_id == called.call_id
    output = {"type": "function_call_output", "call_id": called.call_id, "output": '{"answer": "It rains in Paris."}'}
    await sdk.connection.conversation.item.create(item=output)
    await sdk.until("conversation.item.done")
    began = len(sdk.seen)
    await sdk.connection.response.create()
    done = await sdk.until("response.done")
    assert done.response.output[0].content[0].text == "It rains in Paris."
    assert sdk.kinds(began) == [
        "response.created",
        "response.output_item.added",
        "conversation.item.added",
        "response.content_part.added",
        "response.output_text.delta",
        "response.output_text.done",
        "response.content_part.done",
        "conversation.item.done",
        "response.output_item.done",
        "response.done",
    ]
    # A function that the client wants to be called is called.
    await sdk.connection.conversation.item.create(item={**asked, "content": [{"type": "input_text", "text": "Hm."}]})
    await sdk.connection.response.create(response={"tool_choice": {"type": "function", "name": "get_weather"}})
    assert (await sdk.until("response.function_call_arguments.done")).name == "get_weather"
    await sdk.until("response.done")

    # Aside from the conversation, with its own input and metadata; nothing of it stays.
    aside = [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Which topic?"}]}]
    began = len(sdk.seen)
    await sdk.connection.response.create(
        response={
            "conversation": "none",
            "metadata": {"topic": "classification"},
            "input": aside,
            "instructions": 'Answer with "The topic is weather."',
        }
    )
    done = await sdk.until("response.done")
    assert done.response.conversation_id is None and done.response.metadata == {"topic": "classification"}
    assert "The topic is weather." in done.response.output[0].content[0].text
    assert "conversation.item.added" not in sdk.kinds(began)


async def test_errors_name_the_event_and_the_field(sdk: Sdk) -> None:
    wrong = [
        ({"type": "session.update", "session": {"voice": "x"}}, "missing_required_parameter", "session.type"),
        (
            {"type": "session.update", "session": {"type": "realtime", "modalities": []}},
            "unknown_parameter",
            "session.modalities",
        ),
        (
            {"type": "session.update", "session": {"type": "realtime", "output_modalities": ["text", "audio"]}},
            "invalid_value",
            "session.output_modalities",
        ),
        (
            {
                "type": "session.update",
                "session": {"type": "realtime", "audio": {"input": {"turn_detection": {"threshold": "high"}}}},
            },
            "invalid_type",
            "session.audio.input.turn_detection.threshold",
        ),
        ({"type": "input_audio_buffer.append", "audio": "not base64!"}, "invalid_value", "audio"),
        ({"type": "conversation.item.delete", "item_id": "nobody"}, "item_delete_invalid_item_id", "item_id"),
        ({"type": "conversation.item.retrieve", "item_id": "nobody"}, "item_retrieve_invalid_item_id", "item_id"),
        ({"type": "response.cancel"}, "response_cancel_not_active", None),
        ({"type": "output_audio_buffer.clear"}, "invalid_event_for_transport", "type"),
        (
            {"type": "conversation.item.create", "item": {"type": "message", "role": "robot"}},
            "invalid_value",
            "item.role",
        ),
        ({"type": "no.such.event"}, "invalid_value", "type"),
    ]
    for number, (event, code, param) in enumerate(wrong):
        await sdk.connection.send({**event, "event_id": f"mine-{number}"})
        error = await sdk.error()
        assert (error.code, error.param, error.event_id) == (code, param, f"mine-{number}")
    await sdk.connection.send_raw("[1")
    assert (await sdk.error()).code == "invalid_json"

    # A response while one is active; then the client stops it.
    await sdk.connection.response.create()
    await sdk.until("response.created")
    await sdk.connection.send({"type": "response.create", "event_id": "second"})
    error = await sdk.error()
    assert (error.code, error.event_id) == ("conversation_already_has_active_response", "second")
    await sdk.connection.response.cancel()
    done = await sdk.until("response.done")
    assert (done.response.status, done.response.status_details.reason) == ("cancelled", "client_cancelled")


async def test_an_answer_that_nobody_heard_did_not_happen(sdk: Sdk) -> None:
    content = [{"type": "input_text", "text": "I have a question about my invoice."}]
    await sdk.connection.conversation.item.create(item={"type": "message", "role": "user", "content": content})
    await sdk.connection.response.create()
    await sdk.until("response.created")
    await sdk.connection.response.cancel()
    assert (await sdk.until("response.done")).response.status == "cancelled"
    await sdk.connection.response.create(response={"output_modalities": ["text"]})
    done = await sdk.until("response.done")
    assert "order number" in done.response.output[0].content[0].text


async def test_refusals_before_the_socket(house: ServedHouse) -> None:
    for key, model, status, code in (
        ("a-key-of-nobody-at-all", "support", 401, "invalid_api_key"),
        (KEY, "no-such-flow", 404, "model_not_found"),
        (KEY, "", 400, "missing_required_parameter"),
    ):
        client = AsyncOpenAI(api_key=key, base_url=f"{house.url}/v1", max_retries=0)
        with pytest.raises(InvalidStatus) as refused:
            async with client.realtime.connect(model=model):
                pass
        told = json.loads(refused.value.response.body)
        assert (refused.value.response.status_code, told["error"]["code"]) == (status, code), told
        await client.close()
    offered = ["realtime", f"openai-insecure-api-key.{KEY}"]  # as a browser does it
    async with connect(f"{house.socket_url}?model=support", subprotocols=offered) as socket:
        assert socket.subprotocol == "realtime"
        assert json.loads(await socket.recv())["type"] == "session.created"


async def test_a_call_over_webrtc_with_a_client_secret_and_a_sideband(house: ServedHouse, speech: Speech) -> None:
    client = AsyncOpenAI(api_key=KEY, base_url=f"{house.url}/v1", max_retries=0)
    configured: Any = {
        "type": "realtime",
        "model": "support",
        "audio": {"input": {"transcription": {}, "turn_detection": {"type": "server_vad", "silence_duration_ms": 400}}},
    }
    made = await client.realtime.client_secrets.create(
        session=configured, expires_after={"anchor": "created_at", "seconds": 60}
    )
    assert made.value.startswith("ek_") and made.session.audio.input.turn_detection.silence_duration_ms == 400
    in_browser = AsyncOpenAI(api_key=made.value, base_url=f"{house.url}/v1", max_retries=0)
    browser = Browser()
    try:
        reply = await in_browser.realtime.calls.with_raw_response.create(sdp=await browser.offer())
        call_id = reply.headers["Location"].rsplit("/", 1)[1]
        assert reply.http_response.status_code == 201 and call_id.startswith("rtc_")
        await browser.answered(reply.text)
        created = await browser.until("session.created")
        assert created["session"]["audio"]["input"]["turn_detection"]["silence_duration_ms"] == 400

        # The server side of the application watches and steers, with its own key; the browser's secret may not.
        with pytest.raises(InvalidStatus) as refused:
            async with in_browser.realtime.connect(call_id=call_id):
                pass
        assert refused.value.response.status_code == 403
        async with client.realtime.connect(call_id=call_id) as connection:
            side = Sdk(connection)
            assert (await side.until("session.created")).session.model == "support"
            await connection.response.create(response={"metadata": {"by": "sideband"}})
            done = await side.until("response.done")
            assert done.response.metadata == {"by": "sideband"}
            reading = asyncio.create_task(side.drain())
            await browser.until("output_audio_buffer.stopped")
            assert browser.heard_at
            kinds = browser.kinds()
            assert "response.output_audio.delta" not in kinds
            order = ("response.created", "output_audio_buffer.started", "output_audio_buffer.stopped")
            assert [kind for kind in kinds if kind in order] == list(order)

            # Spoken question, spoken answer; the caller interrupts it, and the server cuts the item by itself.
            pcm = np.frombuffer(speech("invoice"), dtype="<i2").astype(np.int16)
            since = len(browser.events)
            browser.speak(await asyncio.to_thread(resample, pcm, 24_000, 48_000))
            words = await browser.until("conversation.item.input_audio_transcription.completed", since)
            assert "invoice" in words["transcript"].lower()
            await browser.until("output_audio_buffer.started", since)
            await asyncio.sleep(1)
            since = len(browser.events)
            browser.speak(await asyncio.to_thread(resample, pcm, 24_000, 48_000))
            cut = await browser.until("conversation.item.truncated", since)
            assert 500 < cut["audio_end_ms"] < 2500
            await browser.until("output_audio_buffer.cleared", since)
            await client.realtime.calls.hangup(call_id)
            with pytest.raises(ConnectionClosed):  # there is nothing to watch any more
                await reading
        record = await house.record("support")
        assert record.end_reason == "completed"
        assert [line.interrupted for line in record.transcript if line.role == "agent"] == [False, True]
        assert all(event["event_id"].startswith("event_") for event in browser.events)
        for event in browser.events:
            STRICT.validate_python(event)
    finally:
        await browser.close()
        await client.close()
        await in_browser.close()


async def test_waiting_calls_are_accepted_referred_and_rejected(house: ServedHouse) -> None:
    client = AsyncOpenAI(api_key=KEY, base_url=f"{house.url}/v1", max_retries=0)
    rules = Rules(lines=8)
    accepted = await house.queue.enqueue("support", NewCall(form={"ID": "+1", "ticket": "T-1"}), rules)
    turned_away = await house.queue.enqueue("support", NewCall(form={"ID": "+2"}), rules)
    await client.realtime.calls.reject(turned_away.task_id, status_code=486)
    call = await house.queue.get("support", turned_away.task_id)
    assert call is not None and call.end_reason == "rejected" and "486" in call.detail
    with pytest.raises(ConflictError):
        await client.realtime.calls.accept(turned_away.task_id, type="realtime")
    with pytest.raises(NotFoundError):
        await client.realtime.calls.hangup("rtc_nobody")

    await client.realtime.calls.accept(accepted.task_id, type="realtime", instructions="You answer the phone.")
    browser = Browser()
    try:
        answer = await house.signals.offer("support", accepted.task_id, await browser.offer())
        await browser.answered(answer.sdp)
        async with asyncio.timeout(30):
            while (call := await house.queue.get("support", accepted.task_id)) is None or call.state != "live":
                await asyncio.sleep(0.05)
        async with client.realtime.connect(call_id=accepted.task_id) as connection:
            side = Sdk(connection)
            assert (await side.until("session.created")).session.instructions == "You answer the phone."
        await client.realtime.calls.refer(answer.call_id, target_uri="tel:+14155550123")
        record = await house.record("support")
        assert record.end_reason == "transferred" and "tel:+14155550123" in record.detail
    finally:
        await browser.close()
        await client.close()


async def test_a_transcription_session_writes_down_and_answers_nothing(house: ServedHouse, speech: Speech) -> None:
    client = AsyncOpenAI(api_key=KEY, base_url=f"{house.url}/v1", max_retries=0)
    async with client.realtime.connect(model="support", extra_query={"intent": "transcription"}) as connection:
        sdk = Sdk(connection)
        assert (await sdk.until("session.created")).session.type == "transcription"
        await sdk.speak(speech("operator"))
        words = await sdk.until("conversation.item.input_audio_transcription.completed")
        assert "operator" in words.transcript.lower()

        # By meaning: "my order number is four" hangs in the air, and a pause does not end it.
        detection = {"type": "semantic_vad", "eagerness": "auto"}
        await connection.session.update(
            session={"type": "transcription", "audio": {"input": {"turn_detection": detection}}}
        )
        await sdk.until("session.updated")
        whole, pause_at = speech("order-number"), int(1.65 * 24_000) * 2
        await sdk.speak(whole[:pause_at] + bytes(48_000) + whole[pause_at:])
        words = await sdk.until("conversation.item.input_audio_transcription.completed")
        assert digits_in(words.transcript) == ["4172"], words.transcript
        await connection.response.create()
        assert (await sdk.error()).message.startswith("A transcription session")
    await client.close()


async def test_pages_of_other_origins(house: ServedHouse) -> None:
    """A page with a secret may call from anywhere; what it may read is said in the answer to its preflight."""
    async with aiohttp.ClientSession() as http:
        asks = {"Origin": "https://app.example", "Access-Control-Request-Method": "POST"}
        async with http.options(f"{house.url}/v1/realtime/calls", headers=asks) as reply:
            assert (reply.status, reply.headers["Access-Control-Allow-Origin"]) == (204, "https://app.example")
        about = {"Origin": "https://app.example", "Authorization": f"Bearer {KEY}", "Content-Type": "application/sdp"}
        async with http.post(f"{house.url}/v1/realtime/calls?model=support", headers=about, data="v=0") as reply:
            told = await reply.json()
            assert (reply.status, told["error"]["code"]) == (400, "bad_sdp")
            assert "Location" in reply.headers["Access-Control-Expose-Headers"]

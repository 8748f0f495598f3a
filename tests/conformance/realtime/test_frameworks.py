"""Voice-agent frameworks that others wrote, each in a spoken conversation with our `/v1/realtime` on real audio."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from openai import AsyncOpenAI
from openai.types.realtime.realtime_audio_input_turn_detection import ServerVad
from pydantic import SecretStr

from switchroom.compact import compact_canvas
from switchroom.engine import Engine, FlowStore, Session
from switchroom.engine.responder import Responder
from switchroom.queue import NewCall, Rules
from switchroom.realtime.client import load_audio
from switchroom.realtime.openai import OpenAiEngine
from switchroom.realtime.settings import MediaSettings
from switchroom.realtime.speaker import RunTurn

from ...realtime.test_local_engine import Line  # noqa: TID252
from .browser import Browser
from .conftest import EXAMPLES, Speech
from .house import KEY, ServedHouse

HOURS = "We are open from nine to five."
pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_openai_agents(house: ServedHouse, speech: Speech) -> None:
    # The frameworks are large: loaded where they run, not by every process that collects the tests.
    from agents import function_tool
    from agents.realtime import RealtimeAgent, RealtimeRunner

    asked: list[str] = []

    @function_tool
    def opening_hours(day: str) -> str:
        """Tells the opening hours of a day."""
        asked.append(day)
        return HOURS

    agent = RealtimeAgent(name="desk", instructions="You answer the phone.", tools=[opening_hours])
    runner = RealtimeRunner(agent)
    config: Any = {
        "url": f"{house.socket_url}?model=support",
        "api_key": KEY,
        "initial_model_settings": {"turn_detection": {"type": "server_vad", "silence_duration_ms": 400}},
    }
    session = await runner.run(model_config=config)
    async with session, asyncio.timeout(30):
        await session.send_audio(speech("invoice"))
        heard, words = 0, set[tuple[str, str]]()
        async for event in session:
            assert event.type != "error", event
            heard += len(event.audio.data) if event.type == "audio" else 0
            if event.type == "history_updated":
                words |= _said(event.history)
            if heard > 24_000 and {role for role, _ in words} == {"user", "assistant"}:
                break
        assert any(role == "user" and "invoice" in text.lower() for role, text in words), words
        assert any(role == "assistant" and "order number" in text for role, text in words), words

        await session.send_message("What are the opening hours on Monday?")
        async for event in session:
            assert event.type != "error", event
            if event.type == "tool_end":
                assert event.output == HOURS
            if event.type == "history_updated" and ("assistant", HOURS) in _said(event.history):
                break
    assert asked and "Monday" in asked[0]


def _said(history: list[Any]) -> set[tuple[str, str]]:
    parts = ((item.role, part) for item in history if item.type == "message" for part in item.content)
    return {(role, text) for role, part in parts if (text := getattr(part, "transcript", None))}


async def test_livekit(house: ServedHouse, speech: Speech) -> None:
    from livekit import rtc
    from livekit.agents import llm
    from livekit.plugins import openai

    async with aiohttp.ClientSession() as http:
        model = openai.realtime.RealtimeModel(
            model="support",
            base_url=f"{house.url}/v1",
            api_key=KEY,
            http_session=http,
            turn_detection=ServerVad(type="server_vad", silence_duration_ms=400),
        )
        session = model.session()
        errors: list[Any] = []
        said: list[Any] = []
        began: asyncio.Queue[Any] = asyncio.Queue()
        session.on("error", errors.append)
        session.on("generation_created", began.put_nowait)
        session.on("input_audio_transcription_completed", said.append)
        try:
            async with asyncio.timeout(30):
                # Its own item IDs are kept and echoed, else this waits for ever.
                context = llm.ChatContext.empty()
                context.add_message(role="system", content="You answer the phone.")
                await session.update_chat_ctx(context)
                greeting = await session.generate_reply(instructions="Greet the caller.")  # by the echo of metadata
                assert greeting.user_initiated
                assert await _words(greeting) == ("Hello.", True)
                began.get_nowait()

                pcm = speech("invoice")
                for at in range(0, len(pcm), 4_800):
                    piece = pcm[at : at + 4_800]
                    session.push_audio(rtc.AudioFrame(piece, 24_000, 1, len(piece) // 2))
                answer = await began.get()
                assert not answer.user_initiated
                text, sounded = await _words(answer)
                assert "order number" in text and sounded
                while not any("invoice" in event.transcript.lower() for event in said):
                    await asyncio.sleep(0.01)
                messages = [item for item in session.chat_ctx.items if item.type == "message"]
                assert [message.role for message in messages] == ["system", "assistant", "user", "assistant"]
                session.truncate(
                    message_id=messages[-1].id, modalities=["audio"], audio_end_ms=500, audio_transcript="Of course."
                )
                await session.generate_reply(instructions='Say "Take your time."')
        finally:
            await session.aclose()
            await model.aclose()
        assert errors == []


async def _words(generation: Any) -> tuple[str, bool]:
    """A generation's text, and whether it sounded."""
    text, samples = "", 0
    async for message in generation.message_stream:
        async for delta in message.text_stream:
            text += str(delta)
        async for frame in message.audio_stream:
            samples += frame.samples_per_channel
    return text.strip(), samples > 2_400


async def test_openai_agents_for_javascript(
    npm_packages: Path, house: ServedHouse, speech: Speech, tmp_path: Path
) -> None:
    file = tmp_path / "speech.pcm"
    await asyncio.to_thread(file.write_bytes, speech("invoice"))
    environment = {
        **os.environ,
        "PACKAGES": str(npm_packages),
        "URL": f"{house.socket_url}?model=support",
        "KEY": KEY,
        "SPEECH": str(file),
    }
    program = await asyncio.create_subprocess_exec(
        "node",
        str(Path(__file__).parent / "agents_realtime.mjs"),
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(40):
            out, errors = await program.communicate()
    finally:
        if program.returncode is None:
            program.kill()
            await program.wait()
    assert program.returncode == 0, errors.decode()
    told = json.loads(out.splitlines()[-1])
    assert told["errors"] == [] and told["sound"] > 24_000
    assert told["asked"] == ["Monday"]
    assert any(line.startswith("user") and "invoice" in line.lower() for line in told["said"]), told


async def test_our_own_openai_engine(house: ServedHouse, canvas: dict[str, Any]) -> None:
    """The flow decides at one end, the served session hears, calls its functions and speaks at the other."""
    graph = compact_canvas(canvas)
    settings = MediaSettings(
        engine="openai",
        openai_url=house.socket_url,
        openai_model="desk",
        openai_api_key=SecretStr(KEY),
        hangover_ms=400,
    )

    def bind(responder: Responder) -> RunTurn:
        engine = Engine(FlowStore(house.store), responder=responder)
        return lambda session, given: engine.run(graph, session, given)

    session = Session(session_id="s", realtime=True, form={"ID": "1", "ticket": "T-17"}, state={})
    line = Line(OpenAiEngine(bind, session, settings))
    task = asyncio.create_task(line.run())
    try:
        await line.until(lambda: len(line.said("agent")) == 1, 20)
        assert line.said("agent")[0].text == "Hello."
        line.speak(await asyncio.to_thread(load_audio, EXAMPLES / "caller-3-operator.wav"))
        async with asyncio.timeout(30):
            concluded = await task
        assert concluded.cause == "finished"
        assert "operator" in line.said("caller")[0].text.lower()
        assert line.said("agent")[1].text == "One moment, please."
        assert session.outputs["$intent"] == "OPERATOR"  # as the function that was called says
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_flow_steers_a_call_that_a_browser_made_at_the_service(house: ServedHouse) -> None:
    """The browser talks with the service, which is the served endpoint here; the flow steers it over a sideband."""
    browser = Browser()
    headers = {"Authorization": f"Bearer {KEY}"}
    accepted = await house.queue.enqueue("support", NewCall(form={"ID": "+9", "ticket": "T-17"}), Rules(lines=8))
    try:
        async with aiohttp.ClientSession(headers=headers) as http:
            sdp = {"Content-Type": "application/sdp"}
            url = f"{house.url}/v1/realtime/calls?model=desk"
            async with http.post(url, data=await browser.offer(), headers=sdp) as reply:
                assert reply.status == 201, await reply.text()
                service_call = reply.headers["Location"].rsplit("/", 1)[1]
                await browser.answered(await reply.text())
            await browser.until("session.created")
            url = f"{house.url}/api/v1/openai-realtime/support/calls/direct"
            async with http.post(url, json={"taskId": accepted.task_id, "callId": service_call}) as reply:
                assert reply.status == 201, await reply.text()
        greeting = await browser.until("response.output_audio_transcript.done")
        assert greeting["transcript"] == "Hello."
        await browser.until("output_audio_buffer.stopped")
        since = len(browser.events)
        browser.speak(await asyncio.to_thread(load_audio, EXAMPLES / "caller-3-operator.wav"))
        called = await browser.until("response.function_call_arguments.done", since)
        assert called["name"] == "OPERATOR"
        said = await browser.until("response.output_audio_transcript.done", since)
        assert said["transcript"] == "One moment, please."
        record = await house.record("support", timeout_s=20)
        assert (record.end_reason, record.task_id) == ("completed", accepted.task_id)
        lines = [(line.role, line.text) for line in record.transcript]
        assert lines[0] == ("agent", "Hello.") and lines[2] == ("agent", "One moment, please.")
        assert "operator" in lines[1][1].lower()
        assert record.recording is None  # the sound never was here
        desk = await house.record("desk")
        assert desk.end_reason == "completed"  # hung up at the service too
    finally:
        await browser.close()


async def test_a_turn_goes_on_before_the_client_asks_for_it(house: ServedHouse) -> None:
    """The flow has another Agent after the one that called: it runs as soon as the output is there."""
    client = AsyncOpenAI(api_key=KEY, base_url=f"{house.url}/v1", max_retries=0)
    async with client.realtime.connect(model="two-desks") as connection, asyncio.timeout(20):
        tool: Any = {"type": "function", "name": "look", "description": "Looks an order up"}
        await connection.session.update(session={"type": "realtime", "output_modalities": ["text"], "tools": [tool]})
        content = [{"type": "input_text", "text": "Please look my order up."}]
        await connection.conversation.item.create(item={"type": "message", "role": "user", "content": content})
        await connection.response.create()
        call_id = (await _event(connection, "response.function_call_arguments.done")).call_id
        await _event(connection, "response.done")
        output = {"type": "function_call_output", "call_id": call_id, "output": "It is on its way."}
        await connection.conversation.item.create(item=output)
        await asyncio.sleep(0.2)
        await connection.response.create(response={"tool_choice": "none"})
        done = await _event(connection, "response.done")
        assert done.response.status == "completed", done.response.status_details
        assert done.response.output[0].content[0].text == "It is on its way. Goodbye for now."
    await client.close()


async def _event(connection: Any, kind: str) -> Any:
    async for event in connection:
        assert event.type != "error", event
        if event.type == kind:
            return event
    raise AssertionError(f"closed before {kind}")

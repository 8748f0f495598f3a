"""A served session is a call like any other: operators listen, whisper and talk, and a consent is heard to its end."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable

import numpy as np
import pytest
import pytest_asyncio
from openai import AsyncOpenAI

from switchroom.engine import FlowStore
from switchroom.realtime import operators
from switchroom.realtime.audio import Samples, level_dbfs, resample
from switchroom.realtime.desk import Mode
from switchroom.realtime.operators import Asked, LiveCall
from switchroom.records.model import Execution

from .browser import Browser
from .conftest import DESK, Speech
from .house import KEY, ServedHouse
from .sdk import Sdk

pytestmark = pytest.mark.asyncio(loop_scope="module")
CONSENT = "This call is recorded."
PHRASE = 'Say exactly "How can I help you today?"'


@contextlib.asynccontextmanager
async def session(house: ServedHouse, model: str) -> AsyncIterator[Sdk]:
    client = AsyncOpenAI(api_key=KEY, base_url=f"{house.url}/v1", max_retries=0)
    async with client.realtime.connect(model=model) as connection:
        sdk = Sdk(connection)
        await sdk.until("conversation.created")
        yield sdk
    await client.close()


class Operator(Browser):
    """An operator at a session of `flow_id`."""

    def __init__(self, house: ServedHouse, flow_id: str) -> None:
        super().__init__()
        self._house, self._flow_id, self._task_id, self._id = house, flow_id, "", ""

    async def listen(self) -> None:
        row = await self._house.record(self._flow_id, ended=False)
        self._task_id = row.task_id
        data = operators.encode(Asked(operator="ann"))
        reply = await self._house.signals.at_call(
            operators.LISTEN, self._flow_id, row.task_id, sdp=await self.offer(), data=data
        )
        self._id = reply.call_id
        await self.answered(reply.sdp)

    async def ask(self, kind: str, asked: Asked) -> LiveCall:
        data = operators.encode(asked)
        signals = self._house.signals
        return operators.decode_live(
            (await signals.at_call(kind, self._flow_id, self._task_id, call_id=self._id, data=data)).data
        )

    async def hears(self, since: int) -> None:
        await until(lambda: len(self.heard_at) > since)


def is_what_was_said(text: str) -> bool:
    """The words of `operator.wav`, as a recogniser hears them on a machine that has other work too."""
    said = {"i", "would", "like", "to", "talk", "an", "operator"}
    return len(said & set(text.lower().replace(".", "").split())) >= 4


def whispered(row: Execution) -> str:
    return " ".join(one.detail for one in row.operators if one.action == "whispered")


async def until(what: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not what():
            await asyncio.sleep(0.02)


@pytest_asyncio.fixture(loop_scope="module")
async def words(speech: Speech) -> Samples:
    """What an operator says, 48 kHz."""
    pcm = np.frombuffer(speech("operator", silence_s=0), dtype="<i2").astype(np.int16)
    return await asyncio.to_thread(resample, pcm, 24_000, 48_000)


async def test_an_operator_talks_in_the_agents_place(house: ServedHouse, words: Samples) -> None:
    operator = Operator(house, "desk")
    async with session(house, "desk") as sdk:
        await operator.listen()
        await sdk.connection.response.create(response={"instructions": PHRASE})
        await operator.hears(0)  # both sides
        await sdk.until("response.done")
        await operator.ask(operators.SET_MODE, Asked(mode=Mode.WHISPER))
        began = len(sdk.seen)
        operator.speak(words)
        async with asyncio.timeout(30):
            while not is_what_was_said(whispered(await house.record("desk", ended=False))):
                await asyncio.sleep(0.05)  # the agent is told, in words
        assert not sdk.sound(began)  # and the caller hears nothing of it

        live = await operator.ask(operators.SET_MODE, Asked(mode=Mode.TALK))
        assert live.talks == "ann"
        await sdk.connection.response.create()
        assert (await sdk.error()).code in ("operator_talks", "conversation_already_has_active_response")
        began = len(sdk.seen)
        operator.speak(words)
        heard = ""
        while not is_what_was_said(heard):
            heard += " " + (await sdk.until("response.output_audio_transcript.delta")).delta
        sound = np.frombuffer(sdk.sound(began), dtype="<i2").astype(np.int16)
        assert level_dbfs(sound[np.abs(sound) > 500]) > -40  # the client plays it

        live = await operator.ask(operators.SET_MODE, Asked(mode=Mode.LISTEN, say="I am back."))
        assert live.talks == "agent"
        done = await sdk.until("response.done")
        assert done.response.status == "completed" and done.response.metadata == {"operator": "true"}
        done = await sdk.until("response.done")
        assert done.response.output[0].content[0].transcript == "I am back."
        await operator.ask(operators.TRANSFER, Asked(operator="ann", to_number="+38615550100"))  # and so it ends
        async with asyncio.timeout(20):
            with contextlib.suppress(Exception):  # the client's own class for a closed socket
                await sdk.drain()
    await operator.close()

    row = await house.record("desk")
    assert row.end_reason == "transferred"
    assert [*dict.fromkeys(one.action for one in row.operators)] == [
        "operator_joined",
        "whispering",
        "whispered",
        "taken_over",
        "given_back",
        "transfer_started",
    ]
    assert is_what_was_said(" ".join(line.text for line in row.transcript if line.role == "operator"))
    assert not is_what_was_said(" ".join(line.text for line in row.transcript if line.role == "agent"))


async def test_a_consent_is_heard_to_its_end(house: ServedHouse, speech: Speech) -> None:
    voice = {"record_consent_text": CONSENT}
    await FlowStore(house.store).save(DESK, flow_id="consent", name="consent", settings={"lines": 2, "voice": voice})
    async with session(house, "consent") as sdk:
        vad = {"turn_detection": {"type": "server_vad"}, "transcription": {"model": "whisper-1"}}
        await sdk.connection.session.update(session={"type": "realtime", "audio": {"input": vad}})
        await sdk.connection.response.create(response={"instructions": PHRASE})
        await sdk.until("response.output_audio.delta")
        sounds_at = time.monotonic()
        await sdk.speak(speech("invoice"))  # at once, into the consent
        done = await sdk.until("response.done")
        item = done.response.output[0]
        assert item.content[0].transcript.startswith(CONSENT) and done.response.status == "completed"
        await sdk.until("input_audio_buffer.speech_started")  # what was said into it was kept, and is answered
        assert time.monotonic() - sounds_at > 1  # and not before the consent was over
        await sdk.until("conversation.item.input_audio_transcription.completed")
        done = await sdk.until("response.done")
        assert not done.response.output[0].content[0].transcript.startswith(CONSENT)

        # The client says that its caller heard next to nothing: it was no consent, and is said again.
        await sdk.connection.conversation.item.truncate(item_id=item.id, content_index=0, audio_end_ms=40)
        await sdk.until("conversation.item.truncated")
        began = len(sdk.seen)
        await sdk.connection.response.create(response={"instructions": PHRASE})
        done = await sdk.until("response.done")
        assert done.response.output[0].content[0].transcript.startswith(CONSENT)
        assert sdk.seconds(began) > 2

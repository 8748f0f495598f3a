"""Pictures of earlier turns: a model that remembers the conversation sees them again, from the store."""

from __future__ import annotations

import contextlib
import time
from typing import Any

import pytest

from switchroom.compact import compact_canvas
from switchroom.engine import Engine, FlowStore, Session
from switchroom.engine.album import Album
from switchroom.engine.events import Media, TurnEnded, TurnInput
from switchroom.engine.providers import Models, ProviderSettings
from switchroom.engine.runs import Given, Runs
from switchroom.engine.session import Message
from switchroom.store import Store, keys

from .conftest import draw
from .model_server import ModelServer, Say

pytest.importorskip("openai")

PICTURE = Media(name="a.png", mime="image/png", data="iVBORw0KGgo=")


@pytest.mark.parametrize(
    ("accepts", "config", "seen"),
    [
        (("image",), {}, ["text", "image_url"]),
        (("image",), {"allowImageUploads": False}, "Look at this."),
    ],
)
async def test_a_later_turn_brings_the_picture(
    store: Store, flows: FlowStore, accepts: tuple[Any, ...], config: dict[str, Any], seen: Any
) -> None:
    def llm(**more: Any) -> tuple[str, dict[str, Any]]:
        return "llmAgentflow", {"llmModel": "chatOpenAI", "llmModelConfig": {"modelName": "m", **more}} | MEMORY

    graph = compact_canvas(
        draw({"s": ("startAgentflow", {}), "a": llm(**config), "b": llm()}, [("s", "a"), ("a", "b")])
    )
    session = Session(session_id="s")
    async with ModelServer(lambda body: Say("ok")) as server:
        models = Models({"openai": ProviderSettings(base_url=server.url, api_key="k", retries=0, accepts=accepts)})
        engine = Engine(flows, responder=models)
        for turn in (TurnInput(text="Look at this.", media=[PICTURE]), TurnInput(text="What was it?")):
            server.requests.clear()
            async with Runs(store).keep("f-1", f"r-{len(session.messages)}") as kept:
                kept.given = Given(graph=graph, turn=turn, deadline_ms=int(time.time() * 1000) + 60_000, kept_s=600)
                async with contextlib.aclosing(engine.run(graph, session, turn, journal=kept)) as events:
                    last = [event async for event in events][-1]
            assert isinstance(last, TurnEnded), last
        await models.close()
    first = next(
        message["content"] for message in server.requests[0]["messages"] if "Look at" in str(message["content"])
    )
    assert ([part["type"] for part in first] if isinstance(first, list) else first) == seen
    if isinstance(first, list):
        assert first[1]["image_url"]["url"] == "data:image/png;base64,iVBORw0KGgo="
    assert 0 < await store.call("TTL", keys.session_media("f-1", "s")) <= 600


MEMORY = {"llmEnableMemory": True}


async def test_an_album_has_the_newest_only_and_none_that_is_huge(store: Store) -> None:
    album, session = Album(store, "f-1", 60), Session(session_id="s")
    for number in range(5):
        session.messages.append(Message(role="caller", text=str(number)))
        named = Media(name=f"{number}", mime="image/png", data="AAAA")
        await album.keep(session, [named, named, Media(name="huge", mime="image/png", data="A" * (4 << 20) + "A")])
    assert [len(message.media) for message in session.messages] == [0, 2, 2, 2, 2]
    assert await store.call("HLEN", keys.session_media("f-1", "s")) == 8
    found = await album.recall("s", [*session.messages[1].media, "gone", *session.messages[4].media])
    assert [one.name for one in found] == ["1", "1", "4", "4"]

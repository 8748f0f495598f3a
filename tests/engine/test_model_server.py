"""The scripted model server, held to the vendor's own SDK with its strict validation."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel

from .model_server import ModelServer, Say

openai = pytest.importorskip("openai")


class Weather(BaseModel):
    place: str
    degrees: float


TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "strict": True,
        "parameters": {
            "type": "object",
            "properties": {"place": {"type": "string"}},
            "required": ["place"],
            "additionalProperties": False,
        },
    },
}


def client(server: ModelServer) -> Any:
    return openai.AsyncOpenAI(
        base_url=server.url, api_key="test", max_retries=0, timeout=5, _strict_response_validation=True
    )


async def test_the_sdk_reads_text_streamed_and_whole() -> None:
    async with ModelServer(lambda body: Say("Good morning to you")) as server, client(server) as sdk:
        whole = await sdk.chat.completions.create(model="m", messages=[{"role": "user", "content": "hi"}])
        assert whole.choices[0].message.content == "Good morning to you"
        assert whole.usage.total_tokens == 5
        async with sdk.chat.completions.stream(
            model="m", messages=[{"role": "user", "content": "hi"}], stream_options={"include_usage": True}
        ) as stream:
            kinds = [event.type async for event in stream]
            done = await stream.get_final_completion()
    assert kinds.count("content.delta") == 5
    assert done.choices[0].message.content == "Good morning to you"
    assert done.usage.total_tokens == 5


async def test_the_sdk_reads_tool_calls_and_structured_answers() -> None:
    def script(body: dict[str, Any]) -> Say:
        if body["messages"][-1]["role"] == "tool":
            return Say('{"place": "Bled", "degrees": 21.5}')
        return Say(calls=[("weather", {"place": "Bled"})])

    async with ModelServer(script) as server, client(server) as sdk:
        messages: list[Any] = [{"role": "user", "content": "Weather in Bled?"}]
        async with sdk.chat.completions.stream(model="m", messages=messages, tools=[TOOL]) as stream:
            asked = (await stream.get_final_completion()).choices[0].message
        assert asked.tool_calls[0].function.name == "weather"
        assert asked.tool_calls[0].function.parsed_arguments == {"place": "Bled"}
        messages += [asked.model_dump(exclude_none=True, exclude={"parsed"})]
        messages[-1]["tool_calls"][0]["function"].pop("parsed_arguments", None)
        messages += [{"role": "tool", "tool_call_id": asked.tool_calls[0].id, "content": "21.5"}]
        async with sdk.chat.completions.stream(model="m", messages=messages, response_format=Weather) as stream:
            done = (await stream.get_final_completion()).choices[0].message
    assert done.parsed == Weather(place="Bled", degrees=21.5)


async def test_the_sdk_reads_errors() -> None:
    async with ModelServer(lambda body: Say(status=401)) as server, client(server) as sdk:
        with pytest.raises(openai.AuthenticationError) as raised:
            await sdk.chat.completions.create(model="m", messages=[{"role": "user", "content": "hi"}])
        assert raised.value.code == "invalid_api_key"
        with pytest.raises(openai.BadRequestError, match="tool message"):
            await sdk.chat.completions.create(
                model="m", messages=[{"role": "tool", "tool_call_id": "x", "content": "1"}]
            )

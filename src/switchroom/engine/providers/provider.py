"""One model service, through the official `openai` SDK: one exchange of messages, streamed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Any

import msgspec

from switchroom.engine.providers.settings import ProviderSettings
from switchroom.engine.responder import Tool
from switchroom.errors import Unavailable

if TYPE_CHECKING:
    from openai import AsyncOpenAI

__all__ = ["Call", "Failed", "Provider", "Request", "Round"]

log = logging.getLogger(__name__)

_MAX_TEXT = 200_000
"""Characters of one answer."""
_MAX_INDEX = 127


class Failed(Exception):
    """The service did not answer; the sentence says how, with nothing of the request in it."""


class Call(msgspec.Struct, kw_only=True):
    """A tool call that the model wants; `arguments` is JSON text."""

    id: str = ""
    name: str = ""
    arguments: str = ""


class Round(msgspec.Struct, kw_only=True):
    """One whole exchange: the text, or the tools that the model wants called."""

    text: str = ""
    calls: list[Call] = []
    model: str = ""
    provider: str = ""
    input_tokens: int = 0
    output_tokens: int = 0

    def as_message(self) -> dict[str, Any]:
        calls = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments or "{}"}}
            for call in self.calls
        ]
        return {"role": "assistant", "content": self.text or None, "tool_calls": calls}


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """What a model is sent. `model` and `config` are the canvas's, `messages` in the wire's shape."""

    model: str
    config: dict[str, Any]
    messages: list[dict[str, Any]]
    tools: list[Tool]
    schema: dict[str, Any] | None


class Provider:
    """Retries (with jitter, honouring Retry-After) are the SDK's own, before the stream begins."""

    def __init__(self, name: str, settings: ProviderSettings) -> None:
        self.name = name
        self.settings = settings
        self._client: AsyncOpenAI | None = None
        self._opening = asyncio.Lock()

    async def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    async def exchange(self, request: Request, say: Callable[[str], Awaitable[None]]) -> Round:
        """The answer; its text goes to `say` as it comes. Raises Failed."""
        wire = self._wire(request)
        client = await self._opened()
        # Only now: the SDK takes a second to import, which `_opened` does in a thread.
        from openai import APIConnectionError, APIStatusError, APITimeoutError, OpenAIError

        try:
            async with asyncio.timeout(self.settings.timeout_s):
                stream = await client.chat.completions.create(**wire)
                async with stream:
                    return await self._read(stream, say)
        except (TimeoutError, APITimeoutError):
            raise Failed(f"no whole answer within {self.settings.timeout_s:g} s") from None
        except APIConnectionError as error:
            raise Failed(f"it cannot be reached ({type(error.__cause__).__name__})") from error
        except APIStatusError as error:
            raise Failed(f"it answered {error.status_code} ({_reason(error.body)})") from error
        except OpenAIError as error:
            raise Failed(f"its answer is broken ({type(error).__name__})") from error

    async def _read(self, stream: AsyncIterator[Any], say: Callable[[str], Awaitable[None]]) -> Round:
        done = Round(provider=self.name)
        parts: list[str] = []
        size, ended = 0, False
        chunks = aiter(stream)
        while True:
            try:
                chunk = await anext(chunks)
            except StopAsyncIteration:
                break
            except Exception as error:  # the SDK lets errors of its HTTP and JSON libraries through here
                raise Failed(f"its stream broke ({type(error).__name__})") from error
            text, over = _take(done, chunk)
            ended = ended or over
            if text:
                size += len(text)
                if size > _MAX_TEXT:
                    raise Failed(f"it said more than {_MAX_TEXT} characters")
                parts.append(text)
                await say(text)
        if not ended:
            raise Failed("its stream ended before the answer did")
        done.text = "".join(parts)
        done.calls = [call for call in done.calls if call.name]
        return done

    async def _opened(self) -> AsyncOpenAI:
        async with self._opening:
            if self._client is None:
                # Certificates are read from disk while it is built.
                self._client = await asyncio.to_thread(self._build)
            return self._client

    def _build(self) -> AsyncOpenAI:
        try:
            from openai import AsyncAzureOpenAI, AsyncOpenAI
        except ImportError as error:
            raise Unavailable(
                "Model providers need the `providers` extra: pip install 'switchroom[providers]'.",
                code="providers_missing",
            ) from error
        settings = self.settings
        common: dict[str, Any] = {"timeout": settings.timeout_s, "max_retries": settings.retries}
        key = settings.api_key.get_secret_value() or "none"
        base = str(settings.base_url).rstrip("/")
        if settings.api_version:
            return AsyncAzureOpenAI(azure_endpoint=base, api_key=key, api_version=settings.api_version, **common)
        return AsyncOpenAI(base_url=base, api_key=key, **common)

    def _wire(self, request: Request) -> dict[str, Any]:
        settings = self.settings
        model = settings.models.get(request.model) or (
            settings.default_model if settings.default_model and not settings.models else ""
        )
        sent: dict[str, Any] = {
            "model": model or request.model or settings.default_model,
            "messages": request.messages,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        if not sent["model"]:
            raise Failed("the node names no model, and the provider has no default_model")
        for wire, names in _NUMBERS.items():
            value = next((request.config[name] for name in names if request.config.get(name) not in (None, "")), None)
            if value is not None:
                try:
                    sent[wire] = int(value) if wire == "max_tokens" else float(value)
                except (TypeError, ValueError):
                    log.warning("a model setting is no number", extra={"provider": self.name, "setting": wire})
        if request.tools:
            sent["tools"] = [
                {
                    "type": "function",
                    "function": {"name": tool.name, "description": tool.description, "parameters": tool.schema},
                }
                for tool in request.tools
            ]
        if request.schema is not None:
            sent["response_format"] = (
                {"type": "json_schema", "json_schema": {"name": "answer", "schema": request.schema, "strict": True}}
                if settings.structured == "json_schema"
                else {"type": "json_object"}
            )
            if settings.structured == "json_object":
                told = f"Answer with a JSON object of this schema: {msgspec.json.encode(request.schema).decode()}"
                sent["messages"] = [*request.messages, {"role": "system", "content": told}]
        return sent


_NUMBERS = {
    "temperature": ("temperature",),
    "top_p": ("topP",),
    "max_tokens": ("maxTokens", "maxOutputTokens", "maxTokensToSample"),
    "frequency_penalty": ("frequencyPenalty",),
    "presence_penalty": ("presencePenalty",),
}


def _take(done: Round, chunk: Any) -> tuple[str, bool]:
    """A chunk's text, and whether it is the last of its answer; tool calls and counts go to the round."""
    done.model = chunk.model or done.model
    if chunk.usage is not None:
        done.input_tokens, done.output_tokens = chunk.usage.prompt_tokens or 0, chunk.usage.completion_tokens or 0
    if not chunk.choices:
        return "", False
    choice = chunk.choices[0]
    for part in choice.delta.tool_calls or ():
        at = min(part.index or 0, _MAX_INDEX)
        while len(done.calls) <= at:
            done.calls.append(Call())
        call = done.calls[at]
        call.id = part.id or call.id
        if part.function is not None:
            call.name += part.function.name or ""
            call.arguments += part.function.arguments or ""
    return choice.delta.content or choice.delta.refusal or "", choice.finish_reason is not None


def _reason(body: Any) -> str:
    """The service's own code word, never its sentence, which may quote the key or the request."""
    if isinstance(body, dict):
        inner = body.get("error") if isinstance(body.get("error"), dict) else body
        word = inner.get("code") or inner.get("type") if isinstance(inner, dict) else None
        if isinstance(word, str):
            return word[:60]
    return "no reason given"

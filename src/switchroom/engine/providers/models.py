"""The responder that asks models: each node's model by its name in the canvas, the embedded responder where a node
names none or no provider is set at all."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence, Set
from typing import Any

import msgspec

from switchroom.engine.embedded import Embedded
from switchroom.engine.events import HumanAnswer, Media
from switchroom.engine.providers.provider import Call, Failed, Provider, Request, Round
from switchroom.engine.providers.schema import BadAnswer, json_schema_of, read_structured
from switchroom.engine.providers.settings import FAMILIES, ProviderSettings, check_providers
from switchroom.engine.responder import (
    Answer,
    Ask,
    Choice,
    Choosing,
    MediaNotTaken,
    Prompt,
    Tool,
    Understood,
    no_model_sees,
)
from switchroom.errors import SwitchroomError

__all__ = ["ModelFault", "Models"]

log = logging.getLogger(__name__)

_WHOLE_TRIES = 2
"""How often a structured answer is asked for when it does not fit its schema."""
_MAX_CALLS = 32
"""Tool calls of one round."""
_ROLES = {"system": "system", "developer": "developer", "assistant": "assistant"}
_CHOOSER = (
    "You route a conversation. Read the instructions and the input, and choose the one scenario that fits best. Answer "
    "with the scenario's text, exactly as it is given."
)
_SUMMARISER = (
    "Summarise the conversation below for somebody who goes on with it. Keep names, numbers, decisions and open "
    "questions. Add nothing."
)


class ModelFault(SwitchroomError):
    """No model answered."""

    code = "model_failed"
    status = 502
    title = "Model failed"


class Models:
    """See the module. `close()` ends its connections."""

    name = "models"

    def __init__(self, providers: Mapping[str, ProviderSettings], *, embedded: Embedded | None = None) -> None:
        check_providers(dict(providers))
        self._providers = {name: Provider(name, settings) for name, settings in providers.items()}
        self._serves = {
            model: name for name, settings in providers.items() for model in settings.serves or FAMILIES.get(name, ())
        }
        self._embedded = embedded or Embedded()

    async def close(self) -> None:
        for provider in self._providers.values():
            await provider.close()

    def asks_model(self, model: str) -> bool:
        """Whether a model answers for a node that names this one, and not the embedded responder."""
        return bool(model and self._providers)

    def _line(self, model: str) -> list[Provider]:
        """The provider of a canvas's model, then its fallbacks; nothing where the embedded responder answers."""
        if not model or not self._providers:
            return []
        name = self._serves.get(model) or self._serves.get("*")
        if name is None:
            raise ModelFault(
                f"No provider serves the model `{model}`: set one in SWITCHROOM_PROVIDERS, or let one serve `*`.",
                code="model_not_configured",
            )
        first = self._providers[name]
        return [first, *(self._providers[other] for other in first.settings.fallback)]

    async def answer(self, ask: Ask) -> AsyncIterator[Understood | str | Answer]:
        line = _seeing(self._line(ask.model), ask)
        if not line:
            async for given in self._embedded.answer(ask):
                yield given
            return
        taken = set.intersection(*(set(provider.settings.accepts) for provider in line))
        messages = _messages(ask, taken)
        used: list[dict[str, Any]] = []
        usage: dict[str, Any] = {}
        structured = json_schema_of(ask.schema) if ask.schema else None
        rounds = line[0].settings.max_tool_rounds
        tools = {tool.name: tool for tool in ask.tools}
        done = Round()
        for number in range(rounds + 1):
            request = Request(
                model=str(ask.config.get("modelName") or ""),
                config=ask.config,
                messages=messages,
                # In the last round the model has to answer with what it knows.
                tools=list(ask.tools) if number < rounds else [],
                schema=structured,
            )
            async for piece in self._round(line, request, ask, number):
                if isinstance(piece, Round):
                    done = piece
                else:
                    yield piece
            _count(usage, done)
            if not done.calls:
                break
            messages = [*messages, done.as_message()]
            calls = done.calls[:_MAX_CALLS]
            verdict = await _verdict(ask, tools, calls, number)
            results = await asyncio.gather(
                *(
                    ask.once(place := f"tool{number}.{index}", _calling(tools.get(call.name), call, place, verdict))
                    for index, call in enumerate(calls)
                ),
                return_exceptions=True,
            )
            for result in results:
                if isinstance(result, BaseException):
                    raise result
            for call, result in zip(calls, results, strict=True):
                used.append({"tool": call.name, "toolInput": _decoded(call.arguments), "toolOutput": result})
                messages.append({"role": "tool", "tool_call_id": call.id, "content": result})
            for call in done.calls[_MAX_CALLS:]:
                messages.append(
                    {"role": "tool", "tool_call_id": call.id, "content": "Not run: too many calls at once."}
                )
            if verdict is not None and verdict.type == "proceed" and verdict.feedback.strip():
                messages.append({"role": "user", "content": verdict.feedback.strip()})
        output: dict[str, Any] = {"content": done.text, "responder": done.provider, "model": done.model}
        if ask.schema:
            output |= read_structured(done.text, ask.schema)
        if used:
            output["usedTools"] = used
        yield Answer(output=output, usage=usage)

    async def _round(self, line: list[Provider], request: Request, ask: Ask, number: int) -> AsyncIterator[str | Round]:
        """One exchange, streamed where nothing has to be checked first; from the run's memory if it was had before."""
        pieces: asyncio.Queue[str | None] = asyncio.Queue()
        streamed = False

        async def say(text: str) -> None:
            nonlocal streamed
            streamed = True
            pieces.put_nowait(text)  # bounded by the length of an answer

        async def exchange() -> Any:
            if ask.schema:
                return msgspec.to_builtins(await self._checked(line, request, ask.schema))
            return msgspec.to_builtins(await self._first(line, request, say))

        async def work() -> Round:
            try:
                return msgspec.convert(await ask.once(f"round{number}", exchange), Round)
            finally:
                pieces.put_nowait(None)

        task = asyncio.create_task(work())
        try:
            while (text := await pieces.get()) is not None:
                yield text
            done = await task
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        if not streamed and done.text:
            yield done.text
        yield done

    async def _first(self, line: list[Provider], request: Request, say: Callable[[str], Awaitable[None]]) -> Round:
        """From the first provider of the line that answers. Once a piece of text is out, there is no other."""
        failures: list[str] = []
        begun = False

        async def hear(text: str) -> None:
            nonlocal begun
            begun = True
            await say(text)

        for provider in line:
            try:
                return await provider.exchange(request, hear)
            except Failed as failed:
                failures.append(f"{provider.name}: {failed}")
                log.warning("model failed", extra={"provider": provider.name, "detail": str(failed)})
                if begun:
                    break
        raise ModelFault(f"No model answered ({'; '.join(failures)}).")

    async def _checked(self, line: list[Provider], request: Request, rows: list[dict[str, Any]]) -> Round:
        wrong = ""
        for _ in range(_WHOLE_TRIES):
            done = await self._whole(line, request)
            if done.calls:
                return done
            try:
                read_structured(done.text, rows)
            except BadAnswer as error:
                wrong = str(error)
                continue
            return done
        raise ModelFault(f"The model's structured answer is wrong: {wrong}.", code="model_bad_answer")

    async def _whole(self, line: list[Provider], request: Request) -> Round:
        async def keep(text: str) -> None:
            """Nobody hears it before it is checked."""

        return await self._first(line, request, keep)

    async def choose(self, choice: Choice) -> int | Choosing:
        line = self._line(choice.model)
        if not line:
            return Choosing(index=await self._embedded.choose(choice), responder=self._embedded.name)
        names = [item.scenario for item in choice.scenarios]
        rows = [{"key": "output", "type": "enum", "enum": "", "description": "The scenario that fits."}]
        schema = json_schema_of(rows)
        schema["properties"]["output"]["enum"] = list(dict.fromkeys(names))
        asked = {"instructions": choice.instructions, "input": choice.question, "scenarios": names}
        request = Request(
            model=str(choice.config.get("modelName") or ""),
            config=choice.config,
            messages=[
                {"role": "system", "content": choice.system or _CHOOSER},
                *_told(choice.past),
                {"role": "user", "content": msgspec.json.encode(asked).decode()},
            ],
            tools=[],
            schema=schema,
        )
        done = await self._checked(line, request, rows)
        said = read_structured(done.text, rows)["output"].strip().casefold()
        index = next((at for at, name in enumerate(names) if name.strip().casefold() == said), len(names) - 1)
        usage: dict[str, Any] = {}
        _count(usage, done)
        return Choosing(index=index, responder=done.provider, usage=usage)

    async def summarise(self, model: str, config: dict[str, Any], before: str, messages: list[Prompt]) -> str:
        """The conversation so far in a few sentences: `before` with the messages. Nothing where no model answers."""
        line = self._line(model)
        if not line:
            return before
        told = "\n".join(f"{message.role}: {message.content}" for message in messages)
        text = f"Summary so far:\n{before}\n\nThen:\n{told}" if before else told
        request = Request(
            model=str(config.get("modelName") or ""),
            config={},
            messages=[{"role": "system", "content": _SUMMARISER}, {"role": "user", "content": text}],
            tools=[],
            schema=None,
        )
        return (await self._whole(line, request)).text


async def _verdict(ask: Ask, tools: dict[str, Tool], calls: list[Call], number: int) -> HumanAnswer | None:
    """A person's word on those calls of a round that need it; None where none does."""
    asked = [call for call in calls if call.name in tools and tools[call.name].approve]
    if not asked:
        return None
    shown = [{"tool": call.name, "toolInput": _decoded(call.arguments)} for call in asked]
    return await ask.consent(f"consent{number}", shown)


def _calling(tool: Tool | None, wanted: Call, place: str, verdict: HumanAnswer | None) -> Callable[[], Awaitable[str]]:
    async def call() -> str:
        if tool is None:
            return "There is no such tool."
        if tool.approve and (verdict is None or verdict.type != "proceed"):
            said = f" They said: {verdict.feedback.strip()}" if verdict and verdict.feedback.strip() else ""
            return f"Not called: a person did not allow it.{said}"
        given = _decoded(wanted.arguments)
        if not isinstance(given, dict):
            return "The arguments are no JSON object."
        try:
            return await tool.call(given, place)
        except SwitchroomError as error:
            # The model may mend its call or do without; the run's trace keeps what happened.
            return f"The tool failed: {error.detail}"

    return call


def _decoded(arguments: str) -> Any:
    try:
        return msgspec.json.decode(arguments or "{}")
    except msgspec.DecodeError:
        return arguments


def _count(usage: dict[str, Any], done: Round) -> None:
    usage["model"] = done.model
    for name, count in (("inputTokens", done.input_tokens), ("outputTokens", done.output_tokens)):
        usage[name] = usage.get(name, 0) + count
    usage["totalTokens"] = usage["inputTokens"] + usage["outputTokens"]


def _messages(ask: Ask, taken: Set[str]) -> list[dict[str, Any]]:
    """Standing instructions, the turns before, the node's own other messages, this turn's, the question. `taken` are
    the kinds that every provider of the line takes beside text, which earlier turns may bring."""
    standing = [prompt for prompt in ask.prompts if prompt.role in ("system", "developer")]
    others = [prompt for prompt in ask.prompts if prompt.role not in ("system", "developer")]
    messages = _told([*standing, *ask.past, *others, *ask.turn], taken)
    if ask.puts_question and ask.question:
        messages.append({"role": "user", "content": ask.question})
    if all(message["role"] in ("system", "developer") for message in messages):
        messages.append({"role": "user", "content": ask.question or "Go on."})
    if ask.media:
        last = next((at for at in range(len(messages) - 1, -1, -1) if messages[at]["role"] == "user"), None)
        if last is None:
            messages.append({"role": "user", "content": [_part(media) for media in ask.media]})
        else:
            said = messages[last]["content"]
            words = [{"type": "text", "text": said}] if isinstance(said, str) else said
            messages[last] = {"role": "user", "content": [*words, *(_part(media) for media in ask.media)]}
    return messages


def _told(prompts: Sequence[Prompt], taken: Set[str] = frozenset()) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = []
    for prompt in prompts:
        role = _ROLES.get(prompt.role, "user")
        parts = [_part(media) for media in prompt.media if media.kind in taken] if role == "user" else []
        words = [{"type": "text", "text": prompt.content}] if prompt.content else []
        if parts:
            messages.append({"role": role, "content": [*words, *parts]})
        elif prompt.content:
            messages.append({"role": role, "content": prompt.content})
    return messages


def _seeing(line: list[Provider], ask: Ask) -> list[Provider]:
    """Those of the line that take what came with the question. Raises MediaNotTaken where none does."""
    kinds = {media.kind for media in ask.media}
    able = [provider for provider in line if kinds <= set(provider.settings.accepts)]
    if kinds and not able:
        what = " and ".join(sorted(kinds))
        if not line:
            raise no_model_sees(ask)
        raise MediaNotTaken(
            f"The model `{ask.model}` is asked with {what}, which no provider of it takes: name it in `accepts` of the "
            f"provider `{line[0].name}`, if it does."
        )
    return able


_SOUNDS = {
    "audio/wav": "wav",
    "audio/x-wav": "wav",
    "audio/wave": "wav",
    "audio/mpeg": "mp3",
    "audio/mp3": "mp3",
}


def _part(media: Media) -> dict[str, Any]:
    """As OpenAI's chat completions take it (`image_url`, `input_audio`). Raises MediaNotTaken for another type."""
    if media.kind == "image":
        url = media.url or f"data:{media.mime};base64,{media.data}"
        return {"type": "image_url", "image_url": {"url": url}}
    if media.mime not in _SOUNDS or not media.data:
        raise MediaNotTaken(f"`{media.name}` is {media.mime}: models take WAV and MP3.")
    return {"type": "input_audio", "input_audio": {"data": media.data, "format": _SOUNDS[media.mime]}}

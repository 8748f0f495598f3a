"""What a flow knows: Agents and Retrievers over real collections, with and without a model."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from pydantic import HttpUrl, SecretStr

from switchroom.compact import compact_canvas
from switchroom.engine import Engine, FlowStore, Session
from switchroom.engine.events import NodeFinished, TurnEnded, TurnFailed, TurnInput
from switchroom.engine.providers import Models
from switchroom.engine.providers.embeddings import Embeddings, EmbeddingSettings
from switchroom.engine.providers.settings import ProviderSettings
from switchroom.engine.retriever import KnowledgeRetriever
from switchroom.errors import Unavailable
from switchroom.knowledge import Document, Knowledge
from switchroom.store import Store

from .conftest import draw
from .model_server import ModelServer, Say

START = ("startAgentflow", {})
URL = "https://docs.example.com/hours"
HOURS = "# Opening hours\n\nThe shop is open from Monday to Friday from 9 to 17. On Sundays it is closed."
FROM_DOCS = [{"documentStore": "docs.example.com:Documents"}]


@pytest.fixture
async def knowledge(store: Store, data_dir: Path) -> AsyncIterator[Knowledge]:
    held = Knowledge(store, data_dir / "knowledge")
    await held.library.put("docs.example.com", Document(key=URL, url=URL, title="Opening hours", text=HOURS))
    await held.library.put("docs.example.com", Document(key="/x", text="Parcels are sent with a tracking number."))
    yield held
    await held.close()


class Asked:
    def __init__(self, ended: TurnEnded | TurnFailed, outputs: dict[str, Any]) -> None:
        self.ended, self.outputs = ended, outputs

    @property
    def text(self) -> str:
        assert isinstance(self.ended, TurnEnded)
        return self.ended.text


async def ask(engine: Engine, canvas: dict[str, Any], question: str, *, kind: Any = "text") -> Asked:
    session = Session(session_id="s", realtime=kind == "realtime")
    outputs: dict[str, Any] = {}
    async with contextlib.aclosing(
        engine.run(compact_canvas(canvas, kind=kind), session, TurnInput(text=question))
    ) as events:
        async for event in events:
            if isinstance(event, NodeFinished):
                outputs[event.node_id] = event.output
    assert isinstance(event, (TurnEnded, TurnFailed))
    return Asked(event, outputs)


@pytest.fixture
def engine(flows: FlowStore, knowledge: Knowledge) -> Engine:
    return Engine(flows, retriever=KnowledgeRetriever(knowledge))


def agent(**inputs: Any) -> dict[str, Any]:
    inputs.setdefault("agentKnowledgeDocumentStores", FROM_DOCS)
    return draw({"s": START, "a": ("agentAgentflow", inputs)}, [("s", "a")])


async def test_an_agent_answers_from_what_it_knows_and_says_where(engine: Engine) -> None:
    asked = await ask(engine, agent(), "Are you open on a Friday?")
    assert asked.text == f"The shop is open from Monday to Friday from 9 to 17.\n\nSource: {URL}"
    (source,) = asked.outputs["a"]["sourceDocuments"]
    assert source["pageContent"].startswith("The shop is open")
    assert (source["metadata"]["source"], source["metadata"]["collection"]) == (URL, "docs.example.com")


async def test_a_caller_hears_no_address(engine: Engine) -> None:
    asked = await ask(engine, agent(), "Are you open on a Friday?", kind="realtime")
    assert asked.text == "The shop is open from Monday to Friday from 9 to 17."
    assert asked.outputs["a"]["sourceDocuments"][0]["metadata"]["source"] == URL


async def test_nothing_is_made_up(engine: Engine) -> None:
    asked = await ask(engine, agent(), "Who painted the ceiling of the chapel?")
    assert asked.text == "I found nothing about that."
    assert "sourceDocuments" not in asked.outputs["a"]
    fallen = await ask(engine, agent(agentFallback="Let me ask a colleague."), "Who painted the ceiling?")
    assert fallen.text == "Let me ask a colleague."


async def test_an_intent_of_the_flow_goes_first(engine: Engine) -> None:
    intents = [{"intent": "OPEN", "examples": ["are you open on a friday"], "reply": "Yes, of course."}]
    assert (await ask(engine, agent(agentIntents=intents), "Are you open on a Friday?")).text == "Yes, of course."


async def test_a_retriever_hands_its_sources_to_the_node_after_it(engine: Engine) -> None:
    stores = {"retrieverKnowledgeDocumentStores": FROM_DOCS, "retrieverQuery": "{{ question }}"}
    message = {"role": "user", "content": "Question: {{ question }}\nFindings: {{ r }}"}
    canvas = draw(
        {
            "s": START,
            "r": ("retrieverAgentflow", {**stores, "outputFormat": "textWithMetadata"}),
            "l": ("llmAgentflow", {"llmMessages": [message]}),
        },
        [("s", "r"), ("r", "l")],
    )
    asked = await ask(engine, canvas, "When is it closed?")
    assert f"(source: {URL})" in asked.outputs["r"]["content"]
    assert asked.text == f"On Sundays it is closed.\n\nSource: {URL}"
    assert asked.outputs["l"]["sourceDocuments"] == asked.outputs["r"]["sourceDocuments"][:1]


@pytest.mark.parametrize("inputs", [{"agentKnowledgeDocumentStores": [{"documentStore": "1:papers"}]}])
async def test_nothing_is_found_where_there_is_no_collection(engine: Engine, inputs: dict[str, Any]) -> None:
    asked = await ask(engine, agent(**inputs), "Open?")
    assert asked.text == "I found nothing about that."
    stores = {"retrieverKnowledgeDocumentStores": [*FROM_DOCS, {"documentStore": "1:papers"}]}
    canvas = draw({"s": START, "r": ("retrieverAgentflow", stores)}, [("s", "r")])
    asked = await ask(engine, canvas, "When is it closed?")
    assert (asked.outputs["r"]["missingStores"], bool(asked.outputs["r"]["content"])) == (["1:papers"], True)


async def test_a_models_answer_has_the_sources_that_it_was_given(flows: FlowStore, knowledge: Knowledge) -> None:
    def script(body: dict[str, Any]) -> Say:
        results = [m["content"] for m in body["messages"] if m["role"] == "tool"]
        if not results:
            return Say(calls=[("search_Documents", {"query": "open on friday"})])
        assert f"(source: {URL})" in results[0]
        return Say("From nine to five.")

    async with ModelServer(script) as server:
        models = Models({"any": ProviderSettings(base_url=server.url, api_key="k", serves=("*",), retries=0)})
        engine = Engine(flows, responder=models, retriever=KnowledgeRetriever(knowledge))
        canvas = agent(agentModel="chatOpenAI", agentModelConfig={"modelName": "m"})
        asked = await ask(engine, canvas, "Open on Friday?")
        await models.close()
    assert asked.text == "From nine to five."
    assert asked.outputs["a"]["sourceDocuments"][0]["metadata"]["source"] == URL


async def test_vectors_come_from_any_service_of_openais_shape() -> None:
    asked: list[dict[str, Any]] = []
    answers: list[web.Response] = []

    async def embeddings(request: web.Request) -> web.Response:
        assert request.headers["Authorization"] == "Bearer k"
        asked.append(await request.json())
        return answers.pop(0)

    def vectors(*rows: list[float]) -> web.Response:
        data = [{"object": "embedding", "index": place, "embedding": row} for place, row in enumerate(rows)]
        return web.json_response({"object": "list", "model": "m", "data": list(reversed(data))})

    app = web.Application()
    app.router.add_post("/v1/embeddings", embeddings)
    async with TestServer(app) as server:
        settings = EmbeddingSettings(
            model="m", base_url=HttpUrl(str(server.make_url("/v1"))), api_key=SecretStr("k"), dimensions=2
        )
        service = Embeddings(settings)
        answers += [web.Response(status=429), vectors([1.0, 0.0], [0.0, 1.0])]
        assert await service.embed(["one", "two"]) == [[1.0, 0.0], [0.0, 1.0]]
        assert asked[-1] == {"model": "m", "input": ["one", "two"], "encoding_format": "float", "dimensions": 2}
        answers += [vectors([0.5, 0.5])]
        assert await service.embed(["one"]) == await service.embed(["one"]) == [[0.5, 0.5]]
        for wrong in (vectors([1.0, 0.0]), web.json_response({"data": 7}), web.Response(status=401)):
            answers.append(wrong)
            with pytest.raises(Unavailable):
                await service.embed(["a", "b"])
        await service.close()
    assert not answers

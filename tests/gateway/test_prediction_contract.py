"""Every event of a streamed turn has the shape that Flowise's clients read, with a model, a tool and sources at it."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from switchroom.engine import Engine
from switchroom.engine.providers import Models, ProviderSettings
from switchroom.engine.retriever import KnowledgeRetriever
from switchroom.gateway.app import build_gateway
from switchroom.gateway.services import Services
from switchroom.knowledge import Document

from .conftest import edge, node

_spec = importlib.util.spec_from_file_location(
    "scripted_model_server", Path(__file__).parents[1] / "engine" / "model_server.py"
)
assert _spec is not None and _spec.loader is not None
_server = importlib.util.module_from_spec(_spec)
sys.modules[_spec.name] = _server
_spec.loader.exec_module(_server)
ModelServer, Say = _server.ModelServer, _server.Say

pytest.importorskip("openai")

TEXT = {"type": "string"}
COUNT = {"type": "integer", "minimum": 1}


def an_object(**members: Any) -> dict[str, Any]:
    return {"type": "object", "required": list(members), "properties": members}


def some(item: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": item, "minItems": 1}


USAGE = an_object(input_tokens=COUNT, output_tokens=COUNT, total_tokens=COUNT)
TRACED = an_object(
    nodeId=TEXT,
    nodeLabel=TEXT,
    data=an_object(id=TEXT, name={"pattern": "Agentflow$"}, input={}, output={}, state={"type": "object"}),
    previousNodeIds={"type": "array", "items": TEXT},
    status={"enum": ["FINISHED"]},
)
EVENTS: dict[str, dict[str, Any]] = {
    "agentFlowEvent": {"enum": ["INPROGRESS", "FINISHED"]},
    "nextAgentFlow": an_object(nodeId=TEXT, nodeLabel=TEXT, status={"enum": ["INPROGRESS", "FINISHED"]}),
    "start": TEXT,
    "token": TEXT,
    "usedTools": some(an_object(tool=TEXT, toolInput={"type": "object"}, toolOutput=TEXT)),
    "sourceDocuments": some(an_object(pageContent=TEXT, metadata={"type": "object"})),
    "usageMetadata": USAGE,
    "agentFlowExecutedData": some(TRACED),
    "metadata": an_object(chatId=TEXT, chatMessageId=TEXT, question=TEXT, sessionId=TEXT, executionId=TEXT),
    "end": {"const": "[DONE]"},
}
"""What Flowise's server sends (`packages/server/src/utils/SSEStreamer.ts`), by its names."""


async def test_each_event_has_its_shape(make_services: Callable[..., Services], aiohttp_client: Any) -> None:
    def script(body: dict[str, Any]) -> Any:
        results = [message["content"] for message in body["messages"] if message["role"] == "tool"]
        if results:
            return Say(f"That makes {results[0]}.")
        other = next(tool["function"] for tool in body["tools"] if tool["function"]["name"] != "calculator")
        asked = dict.fromkeys(other["parameters"]["properties"], "six times seven")
        return Say(calls=[("calculator", {"input": "6 * 7"}), (other["name"], asked)])

    parts = make_services()
    async with ModelServer(script) as server:
        models = Models({"openai": ProviderSettings(base_url=server.url, api_key="sk-test-key")})
        engine = Engine(parts.flows, responder=models, retriever=KnowledgeRetriever(parts.knowledge))
        object.__setattr__(parts, "engine", engine)
        client = await aiohttp_client(build_gateway(parts))
        document = Document(key="sums", text="Six times seven makes forty-two.", url="https://x.example/sums")
        await parts.knowledge.library.put("sums", document)
        inputs = {
            "agentModel": "chatOpenAI",
            "agentModelConfig": {"modelName": "gpt-4o-mini"},
            "agentTools": [{"agentSelectedTool": "calculator"}],
            "agentKnowledgeDocumentStores": [{"documentStore": "1:sums", "returnSourceDocuments": True}],
        }
        canvas = {
            "nodes": [node("startAgentflow_0", "startAgentflow"), node("agentAgentflow_0", "agentAgentflow", **inputs)],
            "edges": [edge("startAgentflow_0", "agentAgentflow_0")],
        }
        await parts.flows.save(canvas, flow_id="sums")
        body = {"question": "What does six times seven make?", "streaming": True}
        text = await (await client.post("/api/v1/prediction/sums", json=body)).text()
        await models.close()

    blocks = [block for block in text.split("\n\n") if block and not block.startswith(":")]
    assert all(block.startswith("message:\ndata:{") for block in blocks), "as Flowise frames them"
    frames = [json.loads(block.removeprefix("message:\ndata:")) for block in blocks]
    for frame in frames:
        Draft202012Validator(EVENTS[frame["event"]]).validate(frame["data"])
    names = [frame["event"] for frame in frames]
    assert set(names) == set(EVENTS) and names[-1] == "end"
    said = {frame["event"]: frame["data"] for frame in frames}
    assert "".join(frame["data"] for frame in frames if frame["event"] == "token") == "That makes 42."
    assert ("calculator", "42") in [(one["tool"], one["toolOutput"]) for one in said["usedTools"]]
    output = said["agentFlowExecutedData"][-1]["data"]["output"]
    Draft202012Validator(USAGE).validate(output["usageMetadata"])
    assert output["timeMetadata"]["delta"] >= 0

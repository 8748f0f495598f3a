"""The eight stock Agentflow V2 canvases run to their end, as they are but for what their user has to fill in: against
a scripted model server, a small HTTP server, and tools of the flow's own in the place of services that want an account.
Each trace is printed (`pytest -s`) and held."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from switchroom.compact import compact_canvas
from switchroom.engine import Engine, FlowStore, Session
from switchroom.engine.custom_tool import CustomTool
from switchroom.engine.events import HumanAnswer, NodeFinished, TurnEnded, TurnFailed, TurnInput
from switchroom.engine.match import best
from switchroom.engine.providers import Models, ProviderSettings
from switchroom.engine.retriever import Passage
from switchroom.errors import NotFound
from switchroom.net import GuardedClient

from .model_server import ModelServer, Say

pytest.importorskip("openai")
CANVASES = Path(__file__).parents[1] / "compact" / "canvases"

TEXT = {"type": "object", "properties": {"query": {"type": "string"}}}
SEARCHES = [
    CustomTool(name="googleCustomSearch", schema=TEXT, code="return `Found one page on ${$query}.`"),
    CustomTool(name="braveSearchAPI", schema=TEXT, code="return `Two views on ${$query}.`"),
    CustomTool(
        name="gmail", schema={"type": "object"}, code="return {sent: true, to: $args.to, subject: $args.subject}"
    ),
    CustomTool(name="openAPIToolkit", schema={"type": "object", "properties": {}}, code="return {pets: ['Rex']}"),
]


class Shelf:
    """A knowledge store of a few sentences."""

    texts = ("Attention lets a model weigh every word of a text.", "Bread is baked at 230 degrees.")

    async def search(self, store: str, query: str, *, limit: int) -> list[Passage]:
        if not store.endswith(":ai paper"):
            raise NotFound(f"There is no store {store}.")
        found = best(query, [[text] for text in self.texts], threshold=0.0)
        return [Passage(text=self.texts[found.candidate if found else 0], source="paper.pdf")][:limit]


class Events:
    """The API that the canvas `interacting-with-api` names: events to read and to make."""

    def __init__(self) -> None:
        self.made: list[dict[str, Any]] = []

    @contextlib.asynccontextmanager
    async def served(self) -> AsyncIterator[str]:
        async def read(request: web.Request) -> web.Response:
            return web.json_response([{"id": "1", "name": "Fair"}, *self.made])

        async def make(request: web.Request) -> web.Response:
            self.made.append(await request.json())
            return web.json_response({"id": "2"}, status=201)

        app = web.Application()
        app.router.add_get("/events", read)
        app.router.add_post("/events", make)
        server = TestServer(app)
        await server.start_server()
        try:
            yield str(server.make_url("/events"))
        finally:
            await server.close()


class Writer:
    """Answers as a model would, by what it is asked: the scenario of its choice, the fields of a schema, each of its
    tools once, else a sentence that counts up."""

    def __init__(self, *choices: str) -> None:
        self.choices = list(choices)
        self.given: dict[str, dict[str, Any]] = {}
        self.count = 0

    def __call__(self, body: dict[str, Any]) -> Say:
        shape = (body.get("response_format") or {}).get("json_schema", {}).get("schema")
        called = {call["function"]["name"] for m in body["messages"] for call in m.get("tool_calls") or ()}
        if shape and "enum" in shape["properties"].get("output", {}):
            return Say(json.dumps({"output": self.choices.pop(0)}))
        if shape:
            return Say(json.dumps({name: _value(field) for name, field in shape["properties"].items()}))
        for tool in body.get("tools") or ():
            name = tool["function"]["name"]
            if name not in called and name not in ("update_event", "delete_event"):
                return Say(calls=[(name, self.given.get(name, {"query": "trains"}))])
        self.count += 1
        return Say(f"Sentence {self.count}.")


def _value(field: dict[str, Any]) -> Any:
    if field["type"] == "array":
        return [_value(field["items"])]
    if field["type"] == "object":
        return {name: _value(inner) for name, inner in field["properties"].items()}
    return {"string": "SELECT name FROM parts LIMIT 5", "number": 1, "boolean": True}[field["type"]]


class Run:
    """One conversation with a stock canvas."""

    def __init__(self, engine: Engine, name: str, server: ModelServer, canvas: dict[str, Any]) -> None:
        self.engine, self.name, self.server = engine, name, server
        self.graph = compact_canvas(canvas)
        self.session = Session(session_id="s-1")
        self.trace: list[str] = []
        self.outputs: dict[str, Any] = {}

    async def say(self, text: str = "", **more: Any) -> TurnEnded | TurnFailed:
        given = TurnInput(text=text, kind="utterance" if self.session.started else "start", **more)
        self.trace = []
        run = self.engine.run(self.graph, self.session, given, tools=SEARCHES)
        async with contextlib.aclosing(run) as events:
            async for event in events:
                if isinstance(event, NodeFinished):
                    branch = f":{event.branch}" if event.branch is not None else ""
                    self.trace.append(re.sub("Agentflow", "", event.node_id) + branch)
                    self.outputs[event.node_id] = event.output
        assert isinstance(event, (TurnEnded, TurnFailed))
        print(f"{self.name}: {' > '.join(self.trace)} => {getattr(event, 'outcome', 'failed')}: {_told(event)[:90]!r}")
        return event


def _told(event: TurnEnded | TurnFailed) -> str:
    return event.text if isinstance(event, TurnEnded) else event.detail


def canvas_of(name: str, **replaced: str) -> dict[str, Any]:
    """The canvas, with texts replaced that its user has to set."""
    text = (CANVASES / f"{name}.json").read_text()
    for old, new in replaced.items():
        assert old in text
        text = text.replace(old, new)
    canvas: dict[str, Any] = json.loads(text)
    return canvas


@contextlib.asynccontextmanager
async def running(flows: FlowStore, name: str, writer: Writer, canvas: dict[str, Any]) -> AsyncIterator[Run]:
    async with ModelServer(writer) as server, GuardedClient(["127.0.0.1"]) as client:
        models = Models({"any": ProviderSettings(base_url=server.url, api_key="k", serves=("*",), retries=0)})
        engine = Engine(flows, responder=models, client=client, retriever=Shelf())
        try:
            yield Run(engine, name, server, canvas)
        finally:
            await models.close()


async def test_agentic_rag(flows: FlowStore) -> None:
    writer = Writer("AI Related", "Irrelevant", "Relevant")
    async with running(flows, "agentic-rag", writer, canvas_of("agentic-rag")) as run:
        ended = await run.say("How does attention work?")
        assert isinstance(ended, TurnEnded) and ended.outcome == "finished"
        assert run.trace == [
            "start_0", "conditionAgent_0:0", "llm_0", "retriever_0", "conditionAgent_1:1", "llm_3", "loop_0",
            "retriever_0", "conditionAgent_1:0", "llm_2",
        ]  # fmt: skip
        assert "Attention lets" in run.server.requests[-1]["messages"][-1]["content"]
        writer.choices = ["General"]
        ended = await run.say("Hello")
        assert run.trace == ["start_0", "conditionAgent_0:1", "llm_1"]


async def test_agents_handoff(flows: FlowStore) -> None:
    writer = Writer(
        "User is looking for item", "User is asking for refund", "User is chatting casually or asking general question"
    )
    async with running(flows, "agents-handoff", writer, canvas_of("agents-handoff")) as run:
        for branch, agent in ((1, "agent_1"), (0, "agent_0"), (2, "agent_2")):
            ended = await run.say("I would like something")
            assert isinstance(ended, TurnEnded) and ended.text.startswith("Sentence")
            assert run.trace == ["start_0", f"conditionAgent_0:{branch}", agent]
        assert run.outputs["agentAgentflow_1"]["usedTools"][0]["toolOutput"] == "Found one page on trains."


async def test_deep_research(flows: FlowStore) -> None:
    writer = Writer()
    async with Events().served() as url:
        writer.given["web_scraper_tool"] = {"url": url}
        name = "deep-research-with-multi-turn-conversations"
        async with running(flows, name, writer, canvas_of(name)) as run:
            ended = await run.say("Trains in Slovenia")
            assert isinstance(ended, TurnEnded) and ended.outcome == "finished"
            # Two agents talk until they exchanged more than eleven messages; then the paper is written.
            assert run.trace[:4] == ["start_0", "llm_0", "agent_0", "agent_1"]
            assert run.trace[-2:] == ["condition_0:1", "llm_1"]
            assert run.trace.count("agent_0") == run.trace.count("agent_1") == 5
            paper = run.server.requests[-1]["messages"][-1]["content"]
            assert "user: Sentence 1." in paper and "Sentence 11." in paper


async def test_human_in_the_loop(flows: FlowStore) -> None:
    async with running(flows, "human-in-the-loop", Writer(), canvas_of("human-in-the-loop")) as run:
        run.session.form = {"subject": "Price", "body": "What does it cost?", "from": "ana@example.com"}
        ended = await run.say()
        assert isinstance(ended, TurnEnded) and ended.outcome == "stopped"
        assert run.trace == ["start_0", "agent_0", "humanInput_0"]
        assert ended.stop is not None and ended.stop.question == "Are you sure you want to proceed?"
        # Who decides sees what about.
        assert ended.text == "Sentence 1.\n\nAre you sure you want to proceed?"
        ended = await run.say(human=HumanAnswer(type="reject", feedback="Kinder, please."))
        assert isinstance(ended, TurnEnded) and ended.outcome == "stopped"
        assert run.trace == ["humanInput_0:1", "loop_0", "agent_0", "humanInput_0"]
        assert run.server.requests[-1]["messages"][-3]["content"] != ""
        assert any(m["content"] == "Kinder, please." for m in run.server.requests[-1]["messages"])
        ended = await run.say(human=HumanAnswer(type="proceed"))
        assert isinstance(ended, TurnEnded) and ended.outcome == "finished"
        assert run.trace == ["humanInput_0:0", "llm_0", "tool_0"]
        sent = run.outputs["toolAgentflow_0"]["value"]
        assert (sent["sent"], sent["to"]) == (True, "ana@example.com")


async def test_interacting_with_api(flows: FlowStore) -> None:
    events, writer = Events(), Writer()
    writer.given = {
        "get_events": {"limit": "10"},
        "create_event": {"name": "Concert", "date": "2026-12-01", "location": "Bled"},
        "openAPIToolkit": {},
    }
    async with events.served() as url:
        canvas = canvas_of("interacting-with-api", **{"http://localhost:5566/events": url})
        # The HTTP node of the canvas is empty: its user gives it a URL.
        http = next(node for node in canvas["nodes"] if node["id"] == "httpAgentflow_0")
        http["data"]["inputs"] |= {"url": url, "method": "GET"}
        async with running(flows, "interacting-with-api", writer, canvas) as run:
            ended = await run.say("Make a concert in Bled")
            assert isinstance(ended, TurnEnded), ended
            assert run.trace == ["start_0", "agent_0", "agent_1", "http_0"]
            assert run.outputs["httpAgentflow_0"]["data"][1]["name"] == "Concert"
        async with running(flows, "interacting-with-api (no URL)", writer, canvas_of("interacting-with-api")) as run:
            run.server.script = lambda body: Say("No tool.")
            ended = await run.say("Go")
            assert isinstance(ended, TurnFailed)
            assert (ended.node_id, ended.code) == ("httpAgentflow_0", "bad_node")
    assert events.made == [{"name": "Concert", "date": "2026-12-01", "location": "Bled"}]


async def test_iterations(flows: FlowStore) -> None:
    async with running(flows, "iterations", Writer(), canvas_of("iterations")) as run:
        ended = await run.say("Go")
        assert isinstance(ended, TurnEnded) and ended.text == "Sentence 5."
        assert run.trace == ["start_0", "llm_0", "llm_1", "llm_0", "llm_1", "iteration_0", "agent_0"]
        asked = [request["messages"][-1]["content"] for request in run.server.requests[:4]]
        assert asked == ["Reply only:\nabc", "Reply only:\nabc", "Reply only:\ndef", "Reply only:\ndef"]


async def test_sql_agent(flows: FlowStore) -> None:
    """Its functions `require` Node modules and open a connection to PostgreSQL, which a sandbox does not have: as it
    is, it stops there and says so. With the two functions given without them, it runs to its end."""
    writer = Writer(
        "SQL query contains mistakes",
        "SQL query is correct and does not contains mistakes",
        "Result query contains error",
        "SQL query is correct and does not contains mistakes",
        "Result is correct and does not contains error",
    )
    async with running(flows, "sql-agent (as it is)", writer, canvas_of("sql-agent")) as run:
        ended = await run.say("Which parts are there?")
        assert isinstance(ended, TurnFailed)
        assert (ended.node_id, ended.code) == ("customFunctionAgentflow_0", "script_needs_modules")
        assert "`typeorm`" in ended.detail and "`pg`" in ended.detail
    canvas = canvas_of("sql-agent")
    for node in canvas["nodes"]:
        if node["id"].startswith("customFunction"):
            first = node["id"].endswith("_0")
            code = "return 'CREATE TABLE parts (name TEXT)'" if first else "return `${$sqlQuery}\\nname\\nbolt`"
            node["data"]["inputs"]["customFunctionJavascriptFunction"] = code
    async with running(flows, "sql-agent", writer, canvas) as run:
        ended = await run.say("Which parts are there?")
        assert isinstance(ended, TurnEnded) and ended.outcome == "finished"
        assert run.trace == [
            "start_0", "customFunction_0", "llm_0", "conditionAgent_0:1", "loop_0",
            "llm_0", "conditionAgent_0:0", "customFunction_1", "conditionAgent_1:1", "llm_2", "loop_1",
            "conditionAgent_0:0", "customFunction_1", "conditionAgent_1:0", "llm_1",
        ]  # fmt: skip
        assert run.session.state["sqlQuery"] == "SELECT name FROM parts LIMIT 5"


async def test_structured_output(flows: FlowStore) -> None:
    async with running(flows, "structured-output", Writer(), canvas_of("structured-output")) as run:
        ended = await run.say("Why is the sky blue?")
        assert isinstance(ended, TurnEnded) and ended.outcome == "finished"
        assert run.trace == ["start_0", "llm_0"]
        assert sorted(run.outputs["llmAgentflow_0"]["output"][0]) == ["answer", "reason"]


def test_all_eight_are_here() -> None:
    names = {path.stem.replace("-", "_") for path in CANVASES.glob("*.json")}
    names = {"deep_research" if name.startswith("deep_research") else name for name in names}
    assert {f"test_{name}" for name in names} <= set(globals())

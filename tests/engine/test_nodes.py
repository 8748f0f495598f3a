"""HTTP, Tool, Wait, hand-over; branches that run at once and merge; a person asked; variables; cancelling."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from switchroom.compact import compact_canvas
from switchroom.engine import Bounds, Engine, FlowStore, Session
from switchroom.engine.custom_tool import CustomTool
from switchroom.engine.events import HumanAnswer, NodeFinished, NodeStarted, TurnEnded, TurnFailed, TurnInput
from switchroom.net import GuardedClient

from .conftest import draw

START = ("startAgentflow", {})


def reply(text: str) -> tuple[str, dict[str, Any]]:
    return ("directReplyAgentflow", {"directReplyMessage": text})


def wait(seconds: float) -> tuple[str, dict[str, Any]]:
    return ("waitAgentflow", {"waitAmount": seconds})


def function(code: str, **more: Any) -> tuple[str, dict[str, Any]]:
    return ("customFunctionAgentflow", {"customFunctionJavascriptFunction": code, **more})


ASK = (
    "humanInputAgentflow",
    {"humanInputDescriptionType": "fixed", "humanInputDescription": "Send {{ f }}?", "humanInputEnableFeedback": True},
)


async def turn(engine: Engine, canvas: dict[str, Any], session: Session, given: TurnInput, **more: Any) -> list[Any]:
    run = engine.run(compact_canvas(canvas), session, given, **more)
    async with contextlib.aclosing(run) as events:
        return [event async for event in events]


def trace(events: list[Any]) -> list[str]:
    return [event.node_id for event in events if isinstance(event, NodeFinished)]


def output(events: list[Any], node_id: str) -> Any:
    return next(event.output for event in events if isinstance(event, NodeFinished) and event.node_id == node_id)


class Api:
    """A small HTTP server that keeps what it was sent and fails as often as it is told."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str, dict[str, str], bytes]] = []
        self.failures: list[int] = []

    async def any(self, request: web.Request) -> web.Response:
        self.seen.append((request.method, request.path_qs, dict(request.headers), await request.read()))
        if self.failures:
            return web.json_response({"no": True}, status=self.failures.pop(0))
        if request.method == "DELETE":
            return web.Response(status=204)
        if request.path == "/plain":
            return web.Response(text='{"items": [{"id": 5}]}')
        return web.json_response({"items": [{"id": 4}], "path": request.path})

    @contextlib.asynccontextmanager
    async def served(self) -> AsyncIterator[str]:
        app = web.Application()
        app.router.add_route("*", "/{rest:.*}", self.any)
        server = TestServer(app)
        await server.start_server()
        try:
            yield str(server.make_url("/")).rstrip("/")
        finally:
            await server.close()


@pytest.fixture
async def out() -> AsyncIterator[GuardedClient]:
    async with GuardedClient(["127.0.0.1"]) as client:
        yield client


async def test_http_sends_what_the_canvas_says(flows: FlowStore, out: GuardedClient) -> None:
    api = Api()
    async with api.served() as url:
        inputs = {
            "method": "POST",
            "url": url + "/orders",
            "headers": [{"key": "X-Shop", "value": "{{ $vars.shop }}"}],
            "queryParams": [{"key": "q", "value": "a&b {{ question }}"}],
            "bodyType": "json",
            "body": '{"said": "{{ question }}", "n": 2}',
        }
        canvas = draw(
            {
                "s": START,
                "h": ("httpAgentflow", inputs),
                "r": reply("{{ h.output.data.items[0].id }} {{ h.output.status }}"),
            },
            [("s", "h"), ("h", "r")],
        )
        events = await turn(
            Engine(flows, client=out),
            canvas,
            Session(session_id="s"),
            TurnInput(text='say "hi"'),
            runtime={"shop": "Bled"},
        )
    method, path, headers, body = api.seen[0]
    assert (method, path, headers["X-Shop"]) == ("POST", "/orders?q=a%26b+say+%22hi%22", "Bled")
    # What a caller said is a value of the body, never a part of its shape.
    assert json.loads(body) == {"said": 'say "hi"', "n": 2}
    assert events[-1].text == "4 200"


@pytest.mark.parametrize(
    ("kind", "body", "sent"),
    [
        ("xWwwFormUrlencoded", '[{"key": "a", "value": "{{ question }}"}]', b"a=x+y"),
        ("raw", "plain {{ question }}", b"plain x y"),
        ("json", "{said: '{{ question }}', n: [1, 2,],}", b'{"said":"x y","n":[1,2]}'),
        ("json", '{"n": {{ $form.n }}, }', b'{"n":7}'),
        ("json", "no JSON", b"no JSON"),
    ],
)
async def test_http_bodies(flows: FlowStore, out: GuardedClient, kind: str, body: str, sent: bytes) -> None:
    api = Api()
    async with api.served() as url:
        inputs = {"method": "PUT", "url": url, "bodyType": kind, "body": body}
        canvas = draw({"s": START, "h": ("httpAgentflow", inputs)}, [("s", "h")])
        await turn(Engine(flows, client=out), canvas, Session(session_id="s", form={"n": 7}), TurnInput(text="x y"))
    assert api.seen[0][3] == sent


async def test_http_answers(flows: FlowStore, out: GuardedClient) -> None:
    """JSON is read as such whatever the server calls it; no body at all is no fault."""
    async with Api().served() as url:
        canvas = draw(
            {
                "s": START,
                "gone": ("httpAgentflow", {"method": "DELETE", "url": url, "responseType": "json"}),
                "plain": ("httpAgentflow", {"url": url + "/plain"}),
                "r": reply("{{ gone.output.http.status }}{{ gone }} {{ plain.output.http.data.items[0].id }}"),
            },
            [("s", "gone"), ("gone", "plain"), ("plain", "r")],
        )
        events = await turn(Engine(flows, client=out), canvas, Session(session_id="s"), TurnInput(text="x"))
    assert events[-1].text == "204 5"


async def test_http_is_tried_again_with_the_same_key(flows: FlowStore, out: GuardedClient) -> None:
    api = Api()
    api.failures = [503, 502]
    async with api.served() as url:
        canvas = draw({"s": START, "h": ("httpAgentflow", {"method": "POST", "url": url, "body": "{}"})}, [("s", "h")])
        events = await turn(Engine(flows, client=out), canvas, Session(session_id="s"), TurnInput(text="x"))
        assert isinstance(events[-1], TurnEnded)
        assert len({headers["Idempotency-Key"] for _, _, headers, _ in api.seen}) == 1
        assert len(api.seen) == 3
        api.failures = [422]
        events = await turn(Engine(flows, client=out), canvas, Session(session_id="s"), TurnInput(text="x"))
    assert (events[-1].code, "422" in events[-1].detail, len(api.seen)) == ("http_error_status", True, 4)


async def test_http_does_not_reach_inside(flows: FlowStore) -> None:
    canvas = draw({"s": START, "h": ("httpAgentflow", {"url": "http://169.254.169.254/latest"})}, [("s", "h")])
    async with GuardedClient() as client:
        events = await turn(Engine(flows, client=client), canvas, Session(session_id="s"), TurnInput(text="x"))
    assert (events[-1].code, events[-1].node_id) == ("outbound_address_refused", "h")
    events = await turn(Engine(flows), canvas, Session(session_id="s"), TurnInput(text="x"))
    assert events[-1].code == "no_outbound"


@pytest.mark.parametrize(
    ("type_", "one", "operation", "two", "holds"),
    [
        ("string", "**Yes**", "equal", "Yes", True),
        ("string", "# *Yes*, `it` is", "equal", "Yes, it is", True),
        ("string", "snake_case_name", "equal", "snake_case_name", True),
        ("string", "2*3*4", "contains", "*3*", True),
        ("number", "12 pieces", "larger", "11", True),
        ("number", "none", "smaller", "1", True),
        ("number", ".5e1", "equal", "5.0", True),
    ],
)
async def test_comparisons_as_canvases_expect_them(
    flows: FlowStore, type_: str, one: str, operation: str, two: str, holds: bool
) -> None:
    row = {"type": type_, "value1": "{{ question }}", "operation": operation, "value2": two}
    canvas = draw({"s": START, "c": ("conditionAgentflow", {"conditions": [row]})}, [("s", "c")])
    events = await turn(Engine(flows), canvas, Session(session_id="s"), TurnInput(text=one))
    seen = output(events, "c")
    assert seen["condition"] == (0 if holds else None)
    assert seen["conditions"][0] == {
        "type": type_, "value1": one, "operation": operation, "value2": two, "isFulfilled": holds
    }  # fmt: skip
    assert [one["isFulfilled"] for one in seen["conditions"]].count(True) == 1


async def test_a_tool_node_calls_a_tool_of_the_flow(flows: FlowStore) -> None:
    tools = [CustomTool(name="vat", schema={"type": "object"}, code="return {net: $price / 1.22, shop: $vars.shop}")]
    inputs = {
        "toolAgentflowSelectedTool": "vat",
        "toolInputArgs": [{"inputArgName": "price", "inputArgValue": "{{ question }}"}],
    }
    canvas = draw(
        {"s": START, "t": ("toolAgentflow", inputs), "r": reply("{{ t.output.value.shop }}")}, [("s", "t"), ("t", "r")]
    )
    given = TurnInput(text="122")
    events = await turn(Engine(flows), canvas, Session(session_id="s"), given, tools=tools, variables={"shop": "Bled"})
    assert output(events, "t")["value"] == {"net": 100, "shop": "Bled"}
    assert events[-1].text == "Bled"
    events = await turn(Engine(flows), canvas, Session(session_id="s"), given)
    assert (events[-1].code, "`vat`" in events[-1].detail) == ("unknown_tool", True)


async def test_a_web_search_by_ones_own_server(flows: FlowStore, out: GuardedClient) -> None:
    async def search(request: web.Request) -> web.Response:
        assert (request.query["format"], request.query["language"]) == ("json", "sl")
        row = {"title": "Bled", "url": "http://bled.example", "content": f"About {request.query['q']}."}
        return web.json_response({"results": [row]})

    app = web.Application()
    app.router.add_get("/search", search)
    server = TestServer(app)
    await server.start_server()
    inputs = {
        "toolAgentflowSelectedTool": "searXNG",
        "toolAgentflowSelectedToolConfig": {"apiBase": str(server.make_url("/")), "language": "sl"},
        "toolInputArgs": [{"inputArgName": "query", "inputArgValue": "{{ question }}"}],
    }
    canvas = draw({"s": START, "t": ("toolAgentflow", inputs)}, [("s", "t")])
    events = await turn(Engine(flows, client=out), canvas, Session(session_id="s"), TurnInput(text="a lake & more"))
    assert events[-1].text == "Bled\nhttp://bled.example\nAbout a lake & more."
    await server.close()


async def test_branches_run_at_once_and_merge_once(flows: FlowStore) -> None:
    canvas = draw(
        {
            "s": START,
            "a": wait(0.1),
            "b": wait(0.1),
            "c": wait(0.1),
            "m": function("return 'merged'"),
        },
        [("s", "a"), ("s", "b"), ("s", "c"), ("a", "m"), ("b", "m"), ("c", "m")],
    )
    events = await turn(Engine(flows), canvas, Session(session_id="s"), TurnInput(text="x"))
    assert (events[-1].text, trace(events).count("m"), trace(events)[-1]) == ("merged", 1, "m")
    kinds = [event for event in events if isinstance(event, (NodeStarted, NodeFinished))][2:5]
    assert all(isinstance(event, NodeStarted) for event in kinds)


async def test_a_merge_waits_for_all_but_the_way_not_taken(flows: FlowStore) -> None:
    """All inputs that are not conditional, and one of each conditional group (Flowise's rule)."""
    canvas = draw(
        {
            "s": START,
            "k": (
                "conditionAgentflow",
                {"conditions": [{"value1": "{{ question }}", "operation": "equal", "value2": "x"}]},
            ),
            "yes": function("return 1"),
            "no": function("return 2"),
            "slow": wait(0.2),
            "m": function("return 'merged'"),
        },
        [("s", "k"), ("s", "slow"), ("k", "yes", 0), ("k", "no", 1), ("yes", "m"), ("no", "m"), ("slow", "m")],
    )
    events = await turn(Engine(flows), canvas, Session(session_id="s"), TurnInput(text="x"))
    assert sorted(trace(events)) == ["k", "m", "s", "slow", "yes"]
    assert trace(events)[-1] == "m"


async def test_branches_speak_one_after_another(flows: FlowStore) -> None:
    canvas = draw({"s": START, "a": reply("One two three."), "b": reply("Four five six.")}, [("s", "a"), ("s", "b")])
    events = await turn(Engine(flows), canvas, Session(session_id="s"), TurnInput(text="x"))
    assert events[-1].text == "One two three. Four five six."


async def test_one_branch_that_fails_ends_the_others(flows: FlowStore) -> None:
    canvas = draw({"s": START, "a": wait(20), "b": function("throw new Error('broken')")}, [("s", "a"), ("s", "b")])
    started = time.monotonic()
    events = await turn(Engine(flows), canvas, Session(session_id="s"), TurnInput(text="x"))
    assert isinstance(events[-1], TurnFailed)
    assert (events[-1].node_id, time.monotonic() - started < 10) == ("b", True)


def approval() -> dict[str, Any]:
    return draw(
        {
            "s": ("startAgentflow", {"startState": [{"key": "n", "value": "7"}]}),
            "f": function("return 'mail ' + $flow.state.n"),
            "h": ASK,
            "yes": reply("Sent {{ f }}: {{ h }}."),
            "no": reply("Not sent: {{ h.output.feedback }} ({{ question }})"),
        },
        [("s", "f"), ("f", "h"), ("h", "yes", 0), ("h", "no", 1)],
    )


@pytest.mark.parametrize(
    ("said", "text"),
    [
        (HumanAnswer(type="proceed"), "Sent mail 7: proceed."),
        (HumanAnswer(type="reject", node_id="h", feedback="too dear"), "Not sent: too dear (write to Ana)"),
    ],
)
async def test_a_person_answers_later_and_elsewhere(flows: FlowStore, said: HumanAnswer, text: str) -> None:
    events = await turn(Engine(flows), approval(), session := Session(session_id="s"), TurnInput(text="write to Ana"))
    assert (events[-1].outcome, events[-1].stop.question, events[-1].stop.feedback) == ("stopped", "Send mail 7?", True)
    # Another process: another engine, the graph from its export, the session from its JSON.
    again = msgspec.json.decode(msgspec.json.encode(session), type=Session)
    events = await turn(Engine(FlowStore(flows._store)), approval(), again, TurnInput(human=said))
    assert (events[-1].outcome, events[-1].text) == ("finished", text)
    assert trace(events) == ["h", "yes" if said.type == "proceed" else "no"]
    assert again.stops == []
    events = await turn(Engine(flows), approval(), again, TurnInput(human=said))
    assert events[-1].code == "not_stopped"


async def test_new_words_drop_a_stop(flows: FlowStore) -> None:
    session = Session(session_id="s")
    await turn(Engine(flows), approval(), session, TurnInput(text="one"))
    events = await turn(Engine(flows), approval(), session, TurnInput(text="two"))
    assert (events[-1].outcome, trace(events), len(session.stops)) == ("stopped", ["s", "f", "h"], 1)


async def test_two_people_are_asked_and_the_merge_waits_for_both(flows: FlowStore) -> None:
    canvas = draw(
        {"s": START, "f": function("return 1"), "a": ASK, "b": ASK, "m": function("return 'both'")},
        [("s", "f"), ("f", "a"), ("f", "b"), ("a", "m", 0), ("b", "m", 0)],
    )
    session = Session(session_id="s")
    await turn(Engine(flows), canvas, session, TurnInput(text="x"))
    assert [stop.node_id for stop in session.stops] == ["a", "b"]
    events = await turn(Engine(flows), canvas, session, TurnInput(human=HumanAnswer(type="proceed")))
    assert events[-1].code == "unknown_stop"
    events = await turn(Engine(flows), canvas, session, TurnInput(human=HumanAnswer(type="proceed", node_id="b")))
    assert (events[-1].outcome, "m" in trace(events)) == ("stopped", False)
    assert [stop.node_id for stop in session.stops] == ["a"]


async def test_a_stop_inside_of_a_nested_flow(flows: FlowStore) -> None:
    await flows.save(approval(), flow_id="inner")
    canvas = draw(
        {
            "s": START,
            "x": ("executeFlowAgentflow", {"executeFlowSelectedFlow": "inner"}),
            "r": reply("Inner said: {{ x }}"),
        },
        [("s", "x"), ("x", "r")],
    )
    session = Session(session_id="s")
    events = await turn(Engine(flows), canvas, session, TurnInput(text="go"))
    assert (events[-1].outcome, session.stops[0].position) == ("stopped", "x>h")
    events = await turn(Engine(flows), canvas, session, TurnInput(human=HumanAnswer(type="proceed")))
    assert events[-1].text.endswith("Inner said: Sent mail 7: proceed.")


async def test_variables_of_a_turn_win(flows: FlowStore) -> None:
    """static < flow < runtime, key by key, also inside of a nested flow."""
    inner = draw({"s": START, "q": reply("{{ $vars.a }}{{ $vars.b }}{{ $vars.c }}")}, [("s", "q")])
    await flows.save(inner, flow_id="inner", settings={"variables": {"b": "inner", "c": "inner"}})
    canvas = draw(
        {
            "s": START,
            "r": reply("{{ $vars.a }}{{ $vars.b }}{{ $vars.c }}/"),
            "x": ("executeFlowAgentflow", {"executeFlowSelectedFlow": "inner"}),
        },
        [("s", "r"), ("r", "x")],
    )
    engine = Engine(flows, variables={"a": "static", "b": "static", "c": "static"})
    more = {"variables": {"b": "flow", "c": "flow"}, "runtime": {"c": "turn"}}
    events = await turn(engine, canvas, Session(session_id="s"), TurnInput(text="x"), **more)
    assert events[-1].text == "staticflowturn/ staticinnerturn"


@pytest.mark.parametrize(("persists", "counted"), [(False, "1"), (True, "2")])
async def test_state_lasts_for_a_run_unless_start_says_more(flows: FlowStore, persists: bool, counted: str) -> None:
    start = ("startAgentflow", {"startState": [{"key": "n", "value": "0"}], "startPersistState": persists})
    update = {"customFunctionUpdateState": [{"key": "n", "value": "{{ output }}"}]}
    canvas = draw({"s": start, "f": function("return Number($flow.state.n) + 1", **update)}, [("s", "f")])
    session = Session(session_id="s")
    for _ in range(2):
        events = await turn(Engine(flows), canvas, session, TurnInput(text="x"))
    assert events[-1].text == counted


async def test_ephemeral_memory_forgets(flows: FlowStore) -> None:
    canvas = draw(
        {"s": ("startAgentflow", {"startEphemeralMemory": True}), "r": reply("{{ chat_history }}")}, [("s", "r")]
    )
    session = Session(session_id="s")
    await turn(Engine(flows), canvas, session, TurnInput(text="one"))
    events = await turn(Engine(flows), canvas, session, TurnInput(text="two"))
    assert events[-1].text == "caller: two"


async def test_handing_over_to_a_realtime_flow(flows: FlowStore) -> None:
    voice = draw({"s": ("startRealtime", {}), "a": ("agentRealtime", {})}, [("s", "a")])
    await flows.save(voice, flow_id="voice", kind="realtime")
    canvas = draw({"s": START, "l": ("loadRealtimeAgentAgentflow", {"flowId": "voice"})}, [("s", "l")])
    events = await turn(Engine(flows), canvas, Session(session_id="s"), TurnInput(text="x"))
    assert output(events, "l")["realtimeFlowId"] == "voice"


async def test_a_wait_longer_than_the_turn_says_so(flows: FlowStore) -> None:
    canvas = draw({"s": START, "w": ("waitAgentflow", {"waitAmount": 2, "waitUnit": "days"})}, [("s", "w")])
    events = await turn(Engine(flows), canvas, Session(session_id="s"), TurnInput(text="x"))
    assert events[-1].code == "wait_too_long"


@pytest.mark.parametrize("inside", [wait(30), ("httpAgentflow", {"url": "URL"})], ids=["wait", "http"])
async def test_cancel_and_deadline(flows: FlowStore, out: GuardedClient, inside: tuple[str, dict[str, Any]]) -> None:
    held = asyncio.Event()

    async def hold(request: web.Request) -> web.Response:
        await held.wait()
        return web.Response()

    app = web.Application()
    app.router.add_get("/", hold)
    server = TestServer(app)
    await server.start_server()
    name, inputs = inside
    if "url" in inputs:
        inputs = {"url": str(server.make_url("/"))}
    canvas = draw({"s": START, "a": (name, inputs), "b": (name, inputs)}, [("s", "a"), ("s", "b")])
    running = Engine(flows, client=out).run(compact_canvas(canvas), Session(session_id="s"), TurnInput(text="x"))
    async for event in running:
        if isinstance(event, NodeStarted) and event.node_id == "b":
            break
    await asyncio.sleep(0.1)
    started = time.monotonic()
    await running.aclose()
    assert time.monotonic() - started < 5
    if name == "httpAgentflow":
        engine = Engine(flows, client=out, bounds=Bounds(deadline_s=0.5))
        started = time.monotonic()
        events = await turn(engine, canvas, Session(session_id="s"), TurnInput(text="x"))
        assert events[-1].code in ("turn_timeout", "outbound_timeout")
        assert time.monotonic() - started < 10
    held.set()
    await server.close()

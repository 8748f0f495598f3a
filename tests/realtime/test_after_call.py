"""What a flow makes of a call when it is over."""

from __future__ import annotations

import json
from typing import Any

import pytest

from switchroom.engine import Engine, FlowStore
from switchroom.realtime.after_call import AfterCall, format_of
from switchroom.records import Executions
from switchroom.records.model import Execution, ExecutionState, Utterance
from switchroom.store import Blobs, Store

from .conftest import support_line

SUMMARY = "# Call {{ $form.ticket }}\nOrder {{ $flow.state.order }}, {{ $vars.call.endReason }}."


def with_branch(template: str) -> dict[str, Any]:
    """The example with a Direct Reply that nothing leads to."""
    canvas = support_line()
    reply = next(node for node in canvas["nodes"] if node["data"]["name"] == "directReplyRealtime")
    branch = json.loads(json.dumps(reply))
    branch["id"] = branch["data"]["id"] = "directReplyRealtime_9"
    branch["data"]["label"] = "Summary"
    branch["data"]["inputs"]["directReplyMessage"] = template
    canvas["nodes"].append(branch)
    return canvas


@pytest.fixture
def ended() -> Execution:
    return Execution(
        id="e1",
        flow_id="support",
        session_id="s1",
        kind="realtime",
        form={"ID": "1", "ticket": "T-17"},
        final_state={"order": "4172"},
        end_reason="completed",
        transcript=[
            Utterance(role="agent", text="How can I help?", start_ms=0, end_ms=900),
            Utterance(role="caller", text="My order number is 4172.", start_ms=1000, end_ms=2000),
        ],
    )


async def run(store: Store, blobs: Blobs, execution: Execution, canvas: dict[str, Any], after_call: str) -> Execution:
    flows, executions = FlowStore(store), Executions(store, blobs)
    await flows.save(canvas, flow_id="support", settings={"voice": {"after_call": after_call}})
    await executions.begin(execution)
    await executions.finish(execution, ExecutionState.FINISHED)
    await AfterCall(Engine(flows), flows, executions).run(execution)
    row = await executions.get("e1")
    assert row is not None and row.state is ExecutionState.FINISHED
    return row


@pytest.mark.parametrize("named", ["Summary", "directReplyRealtime_9"])
async def test_a_branch_of_the_flow(store: Store, blobs: Blobs, ended: Execution, named: str) -> None:
    row = await run(store, blobs, ended, with_branch(SUMMARY), named)
    (summary,) = row.artefacts
    assert (summary.name, summary.format) == ("Summary", "markdown")
    assert summary.text == "# Call T-17\nOrder 4172, completed."


async def test_another_flow_with_fields_and_html(store: Store, blobs: Blobs, ended: Execution) -> None:
    text_flow = {
        "nodes": [
            node("startAgentflow_0", "startAgentflow", "Start", {"startInputType": "chatInput"}),
            node(
                "llmAgentflow_0",
                "llmAgentflow",
                "Fields",
                {"llmStructuredOutput": [{"key": "order", "type": "number", "description": "the order number"}]},
            ),
            node(
                "customFunctionAgentflow_0",
                "customFunctionAgentflow",
                "Page",
                {"customFunctionJavascriptFunction": 'return "<h1>" + $vars.call.endReason + "</h1>"'},
            ),
        ],
        "edges": [
            edge("startAgentflow_0", "llmAgentflow_0"),
            edge("llmAgentflow_0", "customFunctionAgentflow_0"),
        ],
    }
    await FlowStore(store).save(text_flow, flow_id="wrap-up")
    row = await run(store, blobs, ended, support_line(), "wrap-up")
    fields, page = row.artefacts
    assert (fields.name, fields.format) == ("Fields", "json") and json.loads(fields.text)["order"] == 4172
    assert (page.name, page.format, page.text) == ("Page", "html", "<h1>completed</h1>")


async def test_what_cannot_be_done_is_said_on_the_record(store: Store, blobs: Blobs, ended: Execution) -> None:
    row = await run(store, blobs, ended, support_line(), "nowhere")
    assert [one.name for one in row.artefacts] == ["error"] and "`nowhere`" in row.artefacts[0].text


async def test_without_a_branch_nothing_is_run(store: Store, blobs: Blobs, ended: Execution) -> None:
    assert (await run(store, blobs, ended, support_line(), "")).artefacts == []


def test_formats() -> None:
    assert [format_of(text) for text in ("<p>x</p>", '{"a": 1}', "[1]", "{no json", "# Title", "a < b")] == [
        "html",
        "json",
        "json",
        "markdown",
        "markdown",
        "markdown",
    ]


def node(node_id: str, name: str, label: str, inputs: dict[str, Any]) -> dict[str, Any]:
    data = {"id": node_id, "name": name, "label": label, "type": name, "inputs": inputs, "outputAnchors": []}
    return {"id": node_id, "type": "agentFlow", "position": {"x": 0, "y": 0}, "data": data}


def edge(source: str, target: str) -> dict[str, Any]:
    handle = f"{source}-output-{source.split('_')[0]}"
    return {
        "id": f"{source}-{target}",
        "source": source,
        "sourceHandle": handle,
        "target": target,
        "targetHandle": target,
    }

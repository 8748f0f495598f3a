"""What the flow keeps of the caller's words is read back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from switchroom.engine import Engine, FlowStore
from switchroom.engine.events import TurnInput
from switchroom.engine.session import Session
from switchroom.errors import Unavailable
from switchroom.realtime.read_back import noted, read_back
from switchroom.realtime.whisper import WhisperRecogniser
from switchroom.store import Store

from .conftest import support_line
from .talk import Talk, lines


@pytest.mark.parametrize(
    ("details", "said", "spoken"),
    [
        ({"order": "4172"}, "Thank you.", "4 1 7 2"),
        ({"order": "4172"}, "I noted order number 4 1 7 2.", ""),
        ({"order": "4172"}, "Order 4172, thank you.", ""),
        ({"customerName": "Ann Smith", "order": "417"}, "Thank you.", "Ann Smith, and 4 1 7"),
        ({"address": "12 Main Street, Leeds"}, "We come to 12 Main Street, Leeds.", ""),
        ({"topic": "the invoice is wrong"}, "Thank you.", ""),  # free text is not easily misheard as data
        ({"count": "2"}, "Thank you.", ""),
        ({}, "Thank you.", ""),
    ],
)
def test_what_is_read_back(details: dict[str, str], said: str, spoken: str) -> None:
    assert read_back(details, said) == spoken


def test_only_what_the_flow_keeps_counts() -> None:
    output = {"content": "Thank you.", "slots": {"order": "4172", "name": "Ann"}}
    assert noted(output, {"crm": {"order": "4172"}}) == {"order": "4172"}
    assert noted(output, {}) == {} and noted("text", {"a": "b"}) == {} and noted({"slots": None}, {}) == {}


@pytest.mark.parametrize(("reply", "spoken"), [("<p>Thank you.</p>", "Thank you. I noted: 4 1 7 2."), (None, None)])
async def test_a_flow_that_does_not_say_the_number(store: Store, reply: str | None, spoken: str | None) -> None:
    canvas: dict[str, Any] = support_line(greeting="Hello.")
    for node in canvas["nodes"]:
        for intent in (node["data"].get("inputs") or {}).get("agentIntents") or []:
            if intent["intent"] == "ORDER_NUMBER" and reply is not None:
                intent["reply"] = reply
    flows = FlowStore(store)
    flow = await flows.save(canvas, flow_id="support")
    engine = Engine(flows)
    talk = Talk(lines(), form={"ID": "1", "ticket": "T-17"})

    def run_turn(session: Session, given: TurnInput) -> Any:
        return engine.run(flow.graph, session, given)

    talk.engine._run_turn = run_turn
    async with talk.running():
        await talk.turn_over(1)
        talk.caller("My order number is four one seven two.")
        await talk.turn_over(2)
    said = talk.texts("agent")[1]
    assert said == spoken if spoken is not None else said.count("4 1 7 2") == 1


async def test_whisper_says_what_it_lacks(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="whisper_model"):
        await WhisperRecogniser.load(None)
    with pytest.raises(Unavailable, match=r"lacks model\.bin"):
        await WhisperRecogniser.load(tmp_path)
    for name in ("model.bin", "config.json", "tokenizer.json"):
        (tmp_path / name).write_bytes(b"{}")
    with pytest.raises(Unavailable, match="SHA-256") as changed:
        await WhisperRecogniser.load(tmp_path, sha256="0" * 64)
    assert changed.value.code == "model_changed"
    with pytest.raises(Unavailable, match=r"faster-whisper|cannot be loaded"):
        await WhisperRecogniser.load(tmp_path)

"""The node kinds that this engine runs, by their name in the compact graph."""

from switchroom.engine.nodes.base import NodeKind
from switchroom.engine.nodes.condition import Condition
from switchroom.engine.nodes.flow import ConditionAgent, ExecuteFlow, Iteration, Loop, Start
from switchroom.engine.nodes.people import HumanInput, LoadRealtimeAgent
from switchroom.engine.nodes.reach import Http, Retrieve, UseTool
from switchroom.engine.nodes.talk import Agent, Llm
from switchroom.engine.nodes.work import CustomFunction, DirectReply, Wait

__all__ = ["RUNNABLE"]

_ALL: tuple[NodeKind, ...] = (
    Start(),
    Llm(),
    Agent(),
    Condition(),
    ConditionAgent(),
    Loop(),
    ExecuteFlow(),
    Iteration(),
    DirectReply(),
    CustomFunction(),
    Wait(),
    HumanInput(),
    LoadRealtimeAgent(),
    Http(),
    UseTool(),
    Retrieve(),
)
RUNNABLE: dict[str, NodeKind] = {kind.kind: kind for kind in _ALL}

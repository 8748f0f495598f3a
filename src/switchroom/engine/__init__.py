"""Runs a compact graph, one turn at a time, and keeps the flows."""

from switchroom.engine.engine import Engine
from switchroom.engine.flows import Flow, FlowSettings, FlowStore
from switchroom.engine.session import Message, Session
from switchroom.engine.turn import Bounds

__all__ = ["Bounds", "Engine", "Flow", "FlowSettings", "FlowStore", "Message", "Session"]

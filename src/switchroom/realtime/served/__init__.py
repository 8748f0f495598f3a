"""OpenAI's Realtime protocol, served by the models of this machine: `model` names a flow, which decides what is said.

Source of the protocol: the types of the `openai` package 3.51 (`openai/types/realtime`) and the order of events that
its guides document. docs/decisions/realtime-served.md tells how the protocol maps to a flow.
"""

"""The node kinds of a canvas: one declaration of each; reading, validating, expanding and the palette follow from it.

A field has two names: `name` in the compact graph, and `wire` in a Flowise Agentflow V2 canvas (source: the node
classes of Flowise 3.1, `packages/components/nodes/agentflow`). The realtime palette uses the same inputs.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

__all__ = ["BY_NAME", "KINDS", "REALTIME", "Field", "Kind", "kind_of", "label_words"]


class Field(NamedTuple):
    """One input of a node.

    `type` is the form's type: `string number boolean options array code json reference model`. `reference` is the
    name of something outside of the node (a tool, a flow, a store); `model` names a model provider, with its
    settings beside it under `<wire>Config`. Only `code` and `json` are taken as they are; every other text may be
    rich text (HTML with mention spans) and may hold `{{ templates }}`.
    """

    name: str
    wire: str
    type: str = "string"
    label: str = ""
    default: Any = None
    options: tuple[str, ...] = ()
    items: tuple[Field, ...] = ()
    aliases: tuple[str, ...] = ()
    config: bool = False
    """A settings object named `<wire>Config` belongs to it."""


class Kind(NamedTuple):
    """A node kind. `ports` is what its outputs mean: `one` a single way on, `many` numbered branches of which the last
    is else, `two` true and false or proceed and reject, `none` no way on."""

    name: str
    label: str
    title: str
    description: str
    color: str
    version: float
    ports: str
    fields: tuple[Field, ...]
    realtime: bool = False
    canvas_type: str = "agentFlow"

    @property
    def wire(self) -> str:
        """Its `data.name` in a V2 canvas."""
        return f"{self.name}Agentflow"


def _state(prefix: str) -> Field:
    items = (Field("key", "key", label="Key"), Field("value", "value", label="Value"))
    return Field("updateState", f"{prefix}UpdateState", "array", "Update Flow State", items=items)


def _talker(prefix: str) -> tuple[Field, ...]:
    """The inputs that an LLM and an Agent share."""
    messages = (
        Field("role", "role", "options", "Role", options=("system", "assistant", "developer", "user")),
        Field("content", "content", label="Content"),
    )
    memory = ("allMessages", "windowSize", "conversationSummary", "conversationSummaryBuffer")
    return (
        Field("model", f"{prefix}Model", "model", "Model", config=True),
        Field("messages", f"{prefix}Messages", "array", "Messages", items=messages, aliases=("systemMessages",)),
        Field("memory", f"{prefix}EnableMemory", "boolean", "Enable Memory", True),
        Field("memoryType", f"{prefix}MemoryType", "options", "Memory Type", "allMessages", memory),
        Field("window", f"{prefix}MemoryWindowSize", "number", "Window Size", 20),
        Field("tokenLimit", f"{prefix}MemoryMaxTokenLimit", "number", "Max Token Limit", 2000),
        Field("input", f"{prefix}UserMessage", label="Input Message"),
        Field("as", f"{prefix}ReturnResponseAs", "options", "Return Response As", "userMessage", _ROLES),
        _state(prefix),
    )


_ROLES = ("userMessage", "assistantMessage")

_STRUCTURED = Field(
    "schema",
    "llmStructuredOutput",
    "array",
    "JSON Structured Output",
    items=(
        Field("key", "key", label="Key"),
        Field(
            "type", "type", "options", "Type", None, ("string", "stringArray", "number", "boolean", "enum", "jsonArray")
        ),
        Field("enum", "enumValues", label="Enum Values"),
        Field("json", "jsonSchema", "json", "JSON Schema"),
        Field("description", "description", label="Description"),
    ),
)

_INTENTS = Field(
    "intents",
    "agentIntents",
    "array",
    "Intents",
    items=(
        Field("intent", "intent", label="Intent"),
        Field("examples", "examples", "array", "Examples"),
        Field(
            "slots",
            "slots",
            "array",
            "Slots",
            items=(
                Field("name", "name", label="Name"),
                Field("type", "type", "options", "Type", "text", ("digits", "name", "date", "text")),
                Field("ask", "ask", label="Question when it is missing"),
                Field("min", "min", "number", "Least digits"),
                Field("max", "max", "number", "Most digits"),
            ),
        ),
        Field("reply", "reply", label="Reply"),
        Field(
            "updateState",
            "updateState",
            "array",
            "Update Flow State",
            items=(Field("key", "key", label="Key"), Field("value", "value", label="Value")),
        ),
    ),
)

_TOOLS = Field(
    "tools",
    "agentTools",
    "array",
    "Tools",
    items=(
        Field("tool", "agentSelectedTool", "reference", "Tool", config=True),
        Field("approve", "agentSelectedToolRequiresHumanInput", "boolean", "Require Human Input"),
    ),
)

_STORES = Field(
    "stores",
    "agentKnowledgeDocumentStores",
    "array",
    "Knowledge (Document Stores)",
    items=(
        Field("store", "documentStore", "reference", "Document Store"),
        Field("description", "docStoreDescription", label="Describe Knowledge"),
        Field("sources", "returnSourceDocuments", "boolean", "Return Source Documents"),
    ),
)

_VECTORS = Field(
    "vectors",
    "agentKnowledgeVSEmbeddings",
    "array",
    "Knowledge (Vector Embeddings)",
    items=(
        Field("store", "vectorStore", "reference", "Vector Store", config=True),
        Field("embedding", "embeddingModel", "reference", "Embedding Model", config=True),
        Field("name", "knowledgeName", label="Knowledge Name"),
        Field("description", "knowledgeDescription", label="Describe Knowledge"),
        Field("sources", "returnSourceDocuments", "boolean", "Return Source Documents"),
    ),
)

_PAIRS = (Field("key", "key", label="Key"), Field("value", "value", label="Value"))

KINDS: tuple[Kind, ...] = (
    Kind(
        "start",
        "Start",
        "Start",
        "Starting point of the flow",
        "#7EE787",
        1.1,
        "one",
        (
            Field("input", "startInputType", "options", "Input Type", "chatInput", ("chatInput", "formInput")),
            Field("title", "formTitle", label="Form Title"),
            Field("description", "formDescription", label="Form Description"),
            Field(
                "form",
                "formInputTypes",
                "array",
                "Form Input Types",
                items=(
                    Field("type", "type", "options", "Type", "string", ("string", "number", "boolean", "options")),
                    Field("label", "label", label="Label"),
                    Field("name", "name", label="Variable Name"),
                    Field("options", "addOptions", "array", "Add Options", items=(Field("option", "option"),)),
                ),
            ),
            Field("ephemeral", "startEphemeralMemory", "boolean", "Ephemeral Memory"),
            Field("state", "startState", "array", "Flow State", items=_PAIRS),
            Field("persist", "startPersistState", "boolean", "Persist State"),
        ),
        realtime=True,
    ),
    Kind(
        "llm",
        "LLM",
        "LLM",
        "Large language models to analyze inputs and generate responses",
        "#64B5F6",
        1,
        "one",
        (*_talker("llm"), _STRUCTURED),
    ),
    Kind(
        "agent",
        "Agent",
        "Agent",
        "Listens to the caller and answers, with tools and knowledge",
        "#4DD0E1",
        1,
        "one",
        (
            *_talker("agent"),
            _TOOLS,
            _STORES,
            _VECTORS,
            Field("greeting", "agentGreeting", label="Greeting", aliases=("agentFirstMessage", "firstMessage")),
            _INTENTS,
            Field("fallback", "agentFallback", label="Fallback Reply"),
        ),
        realtime=True,
    ),
    Kind(
        "condition",
        "Condition",
        "Condition",
        "Split flows based on if/else conditions",
        "#FFB938",
        1,
        "many",
        (
            Field(
                "conditions",
                "conditions",
                "array",
                "Conditions",
                items=(
                    Field("type", "type", "options", "Type", "string", ("string", "number", "boolean", "expression")),
                    Field("value1", "value1", label="Value 1"),
                    Field("operation", "operation", "options", "Operation", "equal"),
                    Field("value2", "value2", label="Value 2"),
                    Field("expression", "expression", "code", "JavaScript expression"),
                ),
            ),
            Field(
                "expression",
                "conditionExpression",
                "code",
                "JavaScript expression",
                aliases=("condition", "jsExpression", "javascriptExpression", "conditionJavascript", "conditionCode"),
            ),
        ),
        realtime=True,
    ),
    Kind(
        "conditionAgent",
        "Condition Agent",
        "ConditionAgent",
        "Utilize an agent to split flows based on dynamic conditions",
        "#ff8fab",
        1,
        "many",
        (
            Field("model", "conditionAgentModel", "model", "Model", config=True),
            Field("instructions", "conditionAgentInstructions", label="Instructions"),
            Field("input", "conditionAgentInput", label="Input", default="{{ question }}"),
            Field(
                "scenarios",
                "conditionAgentScenarios",
                "array",
                "Scenarios",
                items=(
                    Field("scenario", "scenario", label="Scenario"),
                    Field("examples", "examples", "array", "Examples"),
                ),
            ),
            Field("override", "conditionAgentOverrideSystemPrompt", "boolean", "Override System Prompt"),
            Field("system", "conditionAgentSystemPrompt", label="System Prompt"),
        ),
        realtime=True,
    ),
    Kind(
        "iteration",
        "Iteration",
        "Iteration",
        "Execute the nodes within the block for each item",
        "#9C89B8",
        1,
        "one",
        (Field("input", "iterationInput", label="Array Input"),),
        realtime=True,
        canvas_type="iteration",
    ),
    Kind(
        "loop",
        "Loop",
        "Loop",
        "Loop back to a previous node",
        "#FFA07A",
        1,
        "none",
        (
            Field("to", "loopBackToNode", "node", "Loop Back To", aliases=("loopTo", "targetNode")),
            Field("max", "maxLoopCount", "number", "Max Loop Count", 5, aliases=("loopMaxCount",)),
            Field("fallback", "fallbackMessage", label="Fallback Message"),
            _state("loop"),
        ),
        realtime=True,
    ),
    Kind(
        "executeFlow",
        "Execute Flow",
        "ExecuteFlow",
        "Execute another flow",
        "#a3b18a",
        1,
        "one",
        (
            Field(
                "flow",
                "executeFlowSelectedFlow",
                "reference",
                "Select Flow",
                aliases=("executeFlowId", "flowId", "flow"),
            ),
            Field("input", "executeFlowInput", label="Input"),
            Field("override", "executeFlowOverrideConfig", "json", "Override Config"),
            Field("baseUrl", "executeFlowBaseURL", label="Base URL"),
            Field("as", "executeFlowReturnResponseAs", "options", "Return Response As", "userMessage", _ROLES),
            _state("executeFlow"),
        ),
        realtime=True,
    ),
    Kind(
        "directReply",
        "Direct Reply",
        "DirectReply",
        "Directly reply to the user with a message",
        "#4DDBBB",
        1,
        "one",
        (Field("message", "directReplyMessage", label="Message", aliases=("replyMessage",)),),
        realtime=True,
    ),
    Kind(
        "humanInput",
        "Human Input",
        "HumanInput",
        "Request human input, approval or rejection during execution",
        "#6E6EFD",
        1,
        "two",
        (
            Field("how", "humanInputDescriptionType", "options", "Description Type", None, ("fixed", "dynamic")),
            Field("description", "humanInputDescription", label="Description"),
            Field("model", "humanInputModel", "model", "Model", config=True),
            Field("prompt", "humanInputModelPrompt", label="Prompt"),
            Field("feedback", "humanInputEnableFeedback", "boolean", "Enable Feedback", True),
        ),
    ),
    Kind(
        "tool",
        "Tool",
        "Tool",
        "Tools allow LLM to interact with external systems",
        "#d4a373",
        1.1,
        "one",
        (
            Field("tool", "toolAgentflowSelectedTool", "reference", "Tool", config=True),
            Field(
                "args",
                "toolInputArgs",
                "array",
                "Tool Input Arguments",
                items=(Field("name", "inputArgName", "reference"), Field("value", "inputArgValue")),
            ),
            _state("tool"),
        ),
    ),
    Kind(
        "retriever",
        "Retriever",
        "Retriever",
        "Retrieve information from a knowledge store",
        "#b8bedd",
        1,
        "one",
        (
            Field(
                "stores",
                "retrieverKnowledgeDocumentStores",
                "array",
                "Knowledge (Document Stores)",
                items=(Field("store", "documentStore", "reference"),),
            ),
            Field("query", "retrieverQuery", label="Retriever Query"),
            Field("format", "outputFormat", "options", "Output Format", "text", ("text", "textWithMetadata")),
            _state("retriever"),
        ),
    ),
    Kind(
        "http",
        "HTTP",
        "HTTP",
        "Send a HTTP request",
        "#FF7F7F",
        1.1,
        "one",
        (
            Field("method", "method", "options", "Method", "GET", ("GET", "POST", "PUT", "DELETE", "PATCH")),
            Field("url", "url", label="URL"),
            Field("headers", "headers", "array", "Headers", items=_PAIRS),
            Field("query", "queryParams", "array", "Query Params", items=_PAIRS),
            Field(
                "bodyType", "bodyType", "options", "Body Type", None, ("json", "raw", "formData", "xWwwFormUrlencoded")
            ),
            Field("body", "body", label="Body"),
            Field(
                "response", "responseType", "options", "Response Type", None, ("json", "text", "arraybuffer", "base64")
            ),
        ),
    ),
    Kind(
        "customFunction",
        "Custom Function",
        "CustomFunction",
        "Execute custom function",
        "#E4B7FF",
        1,
        "one",
        (
            Field(
                "variables",
                "customFunctionInputVariables",
                "array",
                "Input Variables",
                items=(Field("name", "variableName"), Field("value", "variableValue")),
            ),
            Field("code", "customFunctionJavascriptFunction", "code", "Javascript Function"),
            _state("customFunction"),
        ),
    ),
    Kind(
        "wait",
        "Wait",
        "Wait",
        "Wait before going on",
        "#CFCFCF",
        1,
        "one",
        (
            Field(
                "amount", "waitAmount", "number", "Wait", aliases=("waitDuration", "waitSeconds", "duration", "seconds")
            ),
            Field(
                "unit",
                "waitUnit",
                "options",
                "Unit",
                "seconds",
                ("milliseconds", "seconds", "minutes", "hours", "days"),
            ),
        ),
    ),
    Kind(
        "loadRealtimeAgent",
        "Load Realtime Agent",
        "LoadRealtimeAgent",
        "Hand over to a realtime flow",
        "#a3b18a",
        1,
        "one",
        (),
    ),
)

BY_NAME: dict[str, Kind] = {kind.name: kind for kind in KINDS}
REALTIME: tuple[Kind, ...] = tuple(kind for kind in KINDS if kind.realtime)

_LOOKUP = {kind.name.lower(): kind for kind in KINDS}
_STICKY = frozenset({"stickynote"})
_AFFIXES = ("agentflow", "realtime", "node")


def label_words(text: str) -> str:
    return re.sub(r"[^a-z0-9]", "", text.lower())


def _resolve(word: str) -> tuple[str | None, bool]:
    """The kind's name behind a spelling such as `startAgentflow`, `conditionAgentRealtime`, `realtimeAgent`."""
    realtime = False
    seen = label_words(word)
    while seen:
        if seen in _LOOKUP:
            return _LOOKUP[seen].name, realtime
        if seen in _STICKY:
            return "stickyNote", realtime
        for affix in _AFFIXES:
            if seen.endswith(affix) or seen.startswith(affix):
                seen = seen.removesuffix(affix) if seen.endswith(affix) else seen.removeprefix(affix)
                realtime = realtime or affix == "realtime"
                break
        else:
            return None, realtime
    return None, realtime


def kind_of(name: str, type_: str) -> tuple[str | None, bool]:
    """The kind of a canvas node from `data.name` and `data.type`, and whether it is of the realtime palette.

    None: a kind that we do not know. `stickyNote` is recognised so that it can be dropped."""
    by_name, realtime = _resolve(name) if name else (None, False)
    if by_name is not None:
        return by_name, realtime
    by_type, realtime_type = _resolve(type_) if type_ else (None, False)
    return by_type, realtime_type or (by_type is not None and realtime)

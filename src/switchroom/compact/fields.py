"""What a node kind and its inputs are declared with, and the inputs that several kinds share.

A field has two names: `name` in the compact graph, and `wire` in a Flowise Agentflow V2 canvas (source: the node
classes of Flowise 3.1, `packages/components/nodes/agentflow`). The realtime palette uses the same inputs.
"""

from __future__ import annotations

from typing import Any, NamedTuple

__all__ = [
    "INTENTS",
    "PAIRS",
    "ROLES",
    "STORES",
    "TOOLS",
    "VECTORS",
    "Field",
    "Kind",
    "memory",
    "state",
    "talker",
]


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
    """A settings object named `<wire>Config` (or with another of its spellings) belongs to it."""
    free: bool = False
    """Any JSON value may stand there, not only a text."""


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


def state(prefix: str) -> Field:
    items = (Field("key", "key", label="Key"), Field("value", "value", label="Value", free=True))
    return Field("updateState", f"{prefix}UpdateState", "array", "Update Flow State", items=items)


def memory(prefix: str) -> tuple[Field, ...]:
    """What a node that asks a model remembers of the session."""
    kinds = ("allMessages", "windowSize", "conversationSummary", "conversationSummaryBuffer")
    return (
        Field("memory", f"{prefix}EnableMemory", "boolean", "Enable Memory", True),
        Field("memoryType", f"{prefix}MemoryType", "options", "Memory Type", "allMessages", kinds),
        Field("window", f"{prefix}MemoryWindowSize", "number", "Window Size", 20),
        Field("tokenLimit", f"{prefix}MemoryMaxTokenLimit", "number", "Max Token Limit", 2000),
    )


def talker(prefix: str) -> tuple[Field, ...]:
    """The inputs that an LLM and an Agent share."""
    messages = (
        Field("role", "role", "options", "Role", options=("system", "assistant", "developer", "user")),
        Field("content", "content", label="Content"),
    )
    return (
        Field("model", f"{prefix}Model", "model", "Model", config=True),
        Field("messages", f"{prefix}Messages", "array", "Messages", items=messages, aliases=("systemMessages",)),
        *memory(prefix),
        Field("input", f"{prefix}UserMessage", label="Input Message"),
        Field("as", f"{prefix}ReturnResponseAs", "options", "Return Response As", "userMessage", ROLES),
        structured(prefix),
        state(prefix),
    )


def structured(prefix: str) -> Field:
    return Field(
        "schema",
        f"{prefix}StructuredOutput",
        "array",
        "JSON Structured Output",
        items=(
            Field("key", "key", label="Key"),
            Field(
                "type",
                "type",
                "options",
                "Type",
                None,
                ("string", "stringArray", "number", "boolean", "enum", "jsonArray"),
            ),
            Field("enum", "enumValues", label="Enum Values"),
            Field("json", "jsonSchema", "json", "JSON Schema"),
            Field("description", "description", label="Description"),
        ),
    )


ROLES = ("userMessage", "assistantMessage")

INTENTS = Field(
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
            items=(Field("key", "key", label="Key"), Field("value", "value", label="Value", free=True)),
        ),
    ),
)

TOOLS = Field(
    "tools",
    "agentTools",
    "array",
    "Tools",
    items=(
        Field("tool", "agentSelectedTool", "reference", "Tool", config=True),
        Field("approve", "agentSelectedToolRequiresHumanInput", "boolean", "Require Human Input"),
    ),
)

STORES = Field(
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

VECTORS = Field(
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

PAIRS = (Field("key", "key", label="Key"), Field("value", "value", label="Value", free=True))

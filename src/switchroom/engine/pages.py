"""The page of the node kinds, written from their declarations: `python -m switchroom.engine.pages > docs/nodes.md`."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence

from switchroom.compact.fields import Field, Kind
from switchroom.compact.kinds import KINDS
from switchroom.compact.templates import as_text
from switchroom.engine.nodes import RUNNABLE

__all__ = ["node_page"]

_HEAD = """# Node kinds

What a canvas may hold, with the inputs as the canvas spells them (`data.inputs`). This page is written from the
declarations that the reader, the validation and the palette (`GET /api/v1/nodes`) follow:
`python -m switchroom.engine.pages > docs/nodes.md`.

Texts may hold templates: `{{ question }}`, `{{ $form.name }}`, `{{ $flow.state.key }}`, `{{ $vars.name }}`,
`{{ nodeId.output.path }}`, `{{ $iteration }}`, `{{ $flow.sessionId }}`, `{{ $flow.chatflowId }}`, `{{ chat_history }}`,
`{{ runtime_messages_length }}`, `{{ loop_count }}`, `{{ file_attachment }}`, `{{ current_date_time }}`. A filter may
follow: `{{ $form.ticket | spell }}` (also `upper`, `lower`, `trim`). What a caller says is never read as a template.

What is set in more than one place:

| | the later wins, key by key |
|---|---|
| variables | the server's, the flow's, `overrideConfig.vars`, `overrideConfig.tenantVariables` |
| state | what Start declares, what came with the enqueue or `overrideConfig.startState`, what nodes set |
| node inputs | the canvas, `overrideConfig` |
| session | `chatId`, else `sessionId`, else `overrideConfig.sessionId`, else a new one |

Of `overrideConfig`, `sessionId` and `tenantVariables` always take effect, the rest where the flow's settings allow it
(`chat.overrides`, `chat.overrideVariables`, `chat.overrideState`); what has none is named in the reply's `ignored`, or
refused with `chat.unknownOverrides: reject`. In a nested flow its own variables stand over its caller's, and what came
with the turn over all.

State lasts for one run, unless Start persists it; a call is one run. With ephemeral memory each run begins without the
messages of those before.
"""
_PORTS = {
    "one": "One way on.",
    "many": "One output for each condition or scenario, and a last one for everything else.",
    "two": "Outputs: 0 proceed, 1 reject.",
    "none": "No way on.",
}


def node_page() -> str:
    """The page as Markdown."""
    return _HEAD + "".join(_section(kind) for kind in KINDS)


def _section(kind: Kind) -> str:
    about = " ".join((type(RUNNABLE[kind.name]).__doc__ or kind.description).split())
    palettes = "text flows and calls" if kind.realtime else "text flows"
    ports = _PORTS[kind.ports] if kind.name != "conditionAgent" else "One output for each scenario."
    rows = "\n".join(_rows(kind.fields, ""))
    return (
        f"\n## {kind.label}\n\n`{kind.wire}`; in the palette of {palettes}. {about} {ports}\n\n"
        f"| input | type | default | what |\n|---|---|---|---|\n{rows}\n"
    )


def _rows(fields: Sequence[Field], under: str) -> Iterator[str]:
    for field in fields:
        name = f"{under}{field.wire}"
        default = "" if field.default in (None, "") else f"`{as_text(field.default)}`"
        one_of = ", ".join(f"`{option}`" for option in field.options)
        kind = {"array": "list", "reference": "name", "model": "model's name"}.get(field.type, field.type)
        what = field.label if not one_of else f"{field.label}: {one_of}" if field.label else one_of
        if field.config:
            what += f" (settings in `{field.wire}Config`)"
        yield f"| `{name}` | {kind} | {default} | {what} |"
        yield from _rows(field.items, f"{name}[].")


if __name__ == "__main__":
    sys.stdout.write(node_page())

"""A node's structured output as JSON Schema, and an answer checked against it.

The shape is what strict structured outputs take: every field required, no other field (source: OpenAI's guide on
structured outputs)."""

from __future__ import annotations

from typing import Any

import msgspec

__all__ = ["BadAnswer", "json_schema_of", "read_structured"]

_PLAIN = {"string": "string", "number": "number", "boolean": "boolean"}


class BadAnswer(Exception):
    """A model's answer is not of the shape that was asked for."""


def json_schema_of(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Rows are `{key, type, enum, json, description}` as the compact graph has them."""
    fields = {str(row["key"]): _field(row) for row in rows if row.get("key")}
    return {"type": "object", "properties": fields, "required": list(fields), "additionalProperties": False}


def _field(row: dict[str, Any]) -> dict[str, Any]:
    described = {"description": str(row["description"])} if row.get("description") else {}
    match row.get("type"):
        case "stringArray":
            return {"type": "array", "items": {"type": "string"}, **described}
        case "enum":
            values = [value.strip() for value in str(row.get("enum", "")).split(",") if value.strip()]
            return {"type": "string", **({"enum": values} if values else {}), **described}
        case "jsonArray":
            return {"type": "array", "items": _object(row.get("json")), **described}
        case kind:
            return {"type": _PLAIN.get(str(kind), "string"), **described}


def _object(declared: Any) -> dict[str, Any]:
    """An array's items: `{name: {type, description}}`, or a schema that already is one."""
    if not isinstance(declared, dict) or not declared:
        return {"type": "object", "properties": {}, "required": [], "additionalProperties": False}
    if declared.get("type") == "object" and isinstance(declared.get("properties"), dict):
        declared = declared["properties"]
    fields = {
        name: {
            "type": _PLAIN.get(str(field.get("type")), "string") if isinstance(field, dict) else "string",
            **(
                {"description": str(field["description"])} if isinstance(field, dict) and "description" in field else {}
            ),
        }
        for name, field in declared.items()
    }
    return {"type": "object", "properties": fields, "required": list(fields), "additionalProperties": False}


def read_structured(text: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The answer's fields. Raises BadAnswer with what is wrong."""
    body = text.strip()
    if body.startswith("```"):
        body = body.strip("`").removeprefix("json").strip()
    try:
        value = msgspec.json.decode(body)
    except msgspec.DecodeError as error:
        raise BadAnswer(f"it is no JSON ({error})") from error
    if not isinstance(value, dict):
        raise BadAnswer("it is no JSON object")
    for key, field in json_schema_of(rows)["properties"].items():
        if key not in value:
            raise BadAnswer(f"the field `{key}` is missing")
        if not _fits(value[key], field):
            raise BadAnswer(f"the field `{key}` is not of the type {field['type']}")
    return value


def _fits(value: Any, field: dict[str, Any]) -> bool:
    match field["type"]:
        case "string":
            return isinstance(value, str) and ("enum" not in field or value in field["enum"])
        case "number":
            return isinstance(value, (int, float)) and not isinstance(value, bool)
        case "boolean":
            return isinstance(value, bool)
        case "array":
            wanted = dict if field["items"]["type"] == "object" else str
            return isinstance(value, list) and all(isinstance(item, wanted) for item in value)
    return True

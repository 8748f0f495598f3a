"""Columns of a Flowise flow: `chatbotConfig`, `apiConfig` and `isPublic` say who may chat and what a turn may set.

Read into our chat settings at an import, and written from them, so that a flow moves between both with its settings.
Their shapes: Flowise 3.1, `packages/server/src/utils/index.ts` (`getAPIOverrideConfig`), `utils/rateLimit.ts`,
`controllers/predictions` (`allowedOrigins`).
"""

from __future__ import annotations

from typing import Annotated, Any, TypeVar
from urllib.parse import urlsplit

import msgspec

from switchroom.engine.chat import ChatSettings, RateLimit
from switchroom.errors import BadInput, Fault

__all__ = ["chat_from", "columns_of"]

T = TypeVar("T")


class _Enabled(msgspec.Struct):
    name: str
    enabled: bool = False


class _Overrides(msgspec.Struct):
    status: bool = False
    nodes: dict[str, list[_Enabled]] = {}
    variables: list[_Enabled] = []


class _Rate(msgspec.Struct, rename="camel"):
    status: bool = False
    limit_max: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] | None = None
    limit_duration: Annotated[int, msgspec.Meta(ge=1, le=86_400)] | None = None
    limit_msg: str = ""


class _ApiConfig(msgspec.Struct, rename="camel"):
    override_config: _Overrides | None = None
    rate_limit: _Rate | None = None


class _Chatbot(msgspec.Struct, rename="camel"):
    allowed_origins: list[str] | None = None


def chat_from(chat: ChatSettings, *, chatbot: object, api: object, public: bool | None) -> ChatSettings:
    """The settings with what the columns say (objects, or JSON strings of them; None: nothing). Raises BadInput."""
    changes: dict[str, Any] = {}
    if public is not None:
        changes["public"] = public
    if chatbot is not None:
        given = _object(chatbot, "chatbotConfig")
        origins = _read(given, _Chatbot, "chatbotConfig").allowed_origins
        if origins is not None:
            changes["allowed_origins"] = [_origin(origin.strip()) for origin in origins if origin.strip()]
        changes["chatbot"] = {name: value for name, value in given.items() if name != "allowedOrigins"}
    if api is not None:
        config = _read(_object(api, "apiConfig"), _ApiConfig, "apiConfig")
        if (over := config.override_config) is not None:
            named = {label: [one.name for one in rows if one.enabled] for label, rows in over.nodes.items()}
            on = over.status
            changes |= {
                "overrides": {label: names for label, names in named.items() if names} if on else {},
                "override_variables": [one.name for one in over.variables if one.enabled] if on else [],
                "override_state": on and any("startState" in names for names in named.values()),
            }
        if (rate := config.rate_limit) is not None:
            changes["rate_limit"] = _rate(rate)
    return msgspec.structs.replace(chat, **changes)


def columns_of(chat: ChatSettings) -> dict[str, Any]:
    """`chatbotConfig` and `apiConfig` as the JSON strings that Flowise's clients read, and `isPublic`."""
    api: dict[str, Any] = {}
    if chat.overrides or chat.override_variables:
        api["overrideConfig"] = {
            "status": True,
            "nodes": {label: [_on(name) for name in names] for label, names in chat.overrides.items()},
            "variables": [_on(name) for name in chat.override_variables],
        }
    if (rate := chat.rate_limit) is not None:
        api["rateLimit"] = {
            "status": True,
            "limitMax": rate.limit,
            "limitDuration": rate.window_s,
            "limitMsg": rate.message,
        }
    chatbot = {**chat.chatbot, **({"allowedOrigins": chat.allowed_origins} if chat.allowed_origins else {})}
    return {
        "is_public": chat.public,
        "chatbot_config": msgspec.json.encode(chatbot).decode() if chatbot else None,
        "api_config": msgspec.json.encode(api).decode() if api else None,
    }


def _origin(text: str) -> str:
    """Its editor takes hosts and whole addresses, too, and asks only for the host."""
    parts = urlsplit(text if "://" in text else f"https://{text}")
    return text if text == "*" else f"{parts.scheme}://{parts.netloc}"


def _on(name: str) -> dict[str, Any]:
    return {"name": name, "enabled": True}


def _rate(rate: _Rate) -> RateLimit | None:
    if not rate.status or rate.limit_max is None or rate.limit_duration is None:
        return None
    limit = RateLimit(limit=rate.limit_max, window_s=rate.limit_duration)
    return msgspec.structs.replace(limit, message=rate.limit_msg) if rate.limit_msg else limit


def _object(value: object, name: str) -> dict[str, Any]:
    if isinstance(value, str):
        try:
            value = msgspec.json.decode(value)
        except (msgspec.DecodeError, RecursionError) as error:
            raise BadInput(f"`{name}` is not JSON: {error}.", faults=[Fault("is not JSON", f"/{name}")]) from error
    if not isinstance(value, dict):
        what = "must be an object, or the JSON string of one"
        raise BadInput(f"`{name}` {what}.", faults=[Fault(what, f"/{name}")])
    return value


def _read(value: dict[str, Any], shape: type[T], name: str) -> T:
    try:
        return msgspec.convert(value, shape, strict=False)  # its editor saves numbers as texts
    except msgspec.ValidationError as error:
        what, _, place = str(error).partition(" - at `$")
        pointer = f"/{name}" + place.rstrip("`").replace("[...]", "").replace(".", "/")
        raise BadInput(f"`{pointer[1:]}` is wrong: {what}.", faults=[Fault(what, pointer)]) from error

"""Tools of an MCP server (the canvas's `customMCP`), by the official client (extra `mcp`).

Source: Model Context Protocol, `tools/list` and `tools/call`, over streamable HTTP, or over the pipes of a program
(`command`). A canvas starts no program but those that the operator has listed, word for word. A session is opened for
each exchange, so that nothing is held between them.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import shlex
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any, NamedTuple

from switchroom.compact.templates import as_text
from switchroom.engine.nodes.base import NodeFault, Step, decoded, drawn
from switchroom.engine.responder import Tool
from switchroom.errors import SwitchroomError
from switchroom.net import Guard, OutboundError

if TYPE_CHECKING:
    import httpx2
    from mcp.client.client import Client

__all__ = ["MCP", "mcp_tools"]

MCP = "customMCP"
_TIMEOUT_S = 30.0
_MAX_TOOLS = 128
_MAX_RESULT = 20_000


class _Server(NamedTuple):
    """Where it is: a URL with the headers to send, or a program with its arguments."""

    url: str = ""
    headers: dict[str, str] = {}  # noqa: RUF012 - never changed
    program: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return self.url or shlex.join(self.program)


class McpFault(NodeFault):
    """An MCP server did not do what it was asked."""

    code = "mcp_failed"


async def mcp_tools(step: Step, config: dict[str, Any]) -> list[Tool]:
    """The server's tools, those of `mcpActions` if it names any. `mcpServerConfig` is `{url, headers}` (JSON, in which
    templates such as `{{$vars.token}}` are filled in) or `{command, args}`. Raises NodeFault, OutboundError."""
    server = _server(step, config)
    chosen = decoded(config["mcpActions"]) if isinstance(config.get("mcpActions"), str) else config.get("mcpActions")
    wanted = {str(name) for name in chosen} if isinstance(chosen, list) else set()

    async def listed() -> Any:
        async with _connected(step, server) as client:
            found = (await client.list_tools()).tools[:_MAX_TOOLS]
        return [
            {"name": tool.name, "description": tool.description or tool.name, "schema": dict(tool.input_schema)}
            for tool in found
        ]

    tools = await step.once(f"mcp {server.name}", listed)
    return [_tool(step, server, tool) for tool in tools if not wanted or tool["name"] in wanted]


def _tool(step: Step, server: _Server, listed: dict[str, Any]) -> Tool:
    async def call(given: dict[str, Any], place: str) -> str:
        async with _connected(step, server) as client:
            result = await client.call_tool(listed["name"], given)
        texts = [str(part.text) if part.type == "text" else f"[{part.type}]" for part in result.content]
        text = "\n".join(texts)[:_MAX_RESULT]
        return f"The tool failed: {text}" if result.is_error else text

    return Tool(name=listed["name"], description=listed["description"], schema=listed["schema"], call=call)


def _server(step: Step, config: dict[str, Any]) -> _Server:
    given = config.get("mcpServerConfig")
    shape = drawn(given) if isinstance(given, str) else given
    if not isinstance(shape, dict):
        raise McpFault(f"`{step.label}` has an MCP server whose settings are no JSON object.")
    if command := shape.get("command"):
        given = shape.get("args")
        program = (
            (str(command), *(str(word) for word in given if word is not None))
            if isinstance(given, list)
            else (str(command),)
        )
        if program in step.kit.programs:
            return _Server(program=program)
        raise McpFault(
            f"`{step.label}` has an MCP server that is the program `{shlex.join(program)}`. Canvases start no programs "
            "here but those of the setting `mcp_programs`: the operator may list this line there, or run the server "
            "elsewhere and give its streamable HTTP address as `url`."
        )
    url = step.render(str(shape.get("url") or "")).strip()
    if not url:
        raise McpFault(f"`{step.label}` has an MCP server without a `url`.")
    headers = shape.get("headers")
    named = headers.items() if isinstance(headers, dict) else ()
    return _Server(url, {str(name): as_text(step.value(value)) for name, value in named})


@contextlib.asynccontextmanager
async def _connected(step: Step, server: _Server) -> AsyncIterator[Client]:
    """A session with the server, through the guard where it is elsewhere. Its faults become one of ours."""
    client = step.kit.client
    if client is None and not server.program:
        raise NodeFault(f"`{step.label}` uses an MCP server, and this process has no way out.", code="no_outbound")
    try:
        # The client takes a second to import, and certificates are read from disk while it is built.
        way: contextlib.AbstractAsyncContextManager[Client] = (
            await asyncio.to_thread(_started, server.program)
            if client is None or server.program
            else _session(server.url, await asyncio.to_thread(_http, client.guard, server.headers))
        )
    except ImportError as error:
        raise McpFault("MCP tools need the `mcp` extra: pip install 'switchroom[mcp]'.") from error
    left_s = step.deadline - asyncio.get_running_loop().time()
    try:
        async with asyncio.timeout(max(0.1, min(_TIMEOUT_S, left_s))), way as session:
            yield session
    except TimeoutError as error:
        raise McpFault(f"The MCP server of `{step.label}` did not answer in time.") from error
    except SwitchroomError:
        raise
    except Exception as error:  # the client has no base class for its own, and groups them
        raise _fault(step, error) from error


@contextlib.asynccontextmanager
async def _session(url: str, http: httpx2.AsyncClient) -> AsyncIterator[Client]:
    from mcp.client.client import Client
    from mcp.client.streamable_http import streamable_http_client

    async with http, Client(streamable_http_client(url, http_client=http)) as session:
        yield session


def _started(program: tuple[str, ...]) -> Client:
    """A session with a program of its own, which ends with it. It has of our environment what the client hands on: its
    path and home, no setting of ours."""
    from mcp.client.client import Client
    from mcp.client.stdio import StdioServerParameters, stdio_client

    importlib.import_module("jsonschema.validators")
    return Client(stdio_client(StdioServerParameters(command=program[0], args=list(program[1:]))))


def _fault(step: Step, error: BaseException) -> SwitchroomError:
    leaves: list[BaseException] = [error]
    while isinstance(leaves[0], BaseExceptionGroup):
        leaves = [*leaves[0].exceptions, *leaves[1:]]
    for leaf in leaves:
        cause: BaseException | None = leaf
        while cause is not None:
            if isinstance(cause, OutboundError):
                return cause
            cause = cause.__cause__ or cause.__context__
    return McpFault(f"The MCP server of `{step.label}` failed: {str(leaves[0])[:300] or type(leaves[0]).__name__}.")


def _http(guard: Guard, headers: dict[str, str]) -> httpx2.AsyncClient:
    import httpx2

    # Imported here, in a thread, before the client does so when it has a result.
    importlib.import_module("jsonschema.validators")
    import mcp.client.client  # noqa: F401

    class Pinned(httpx2.AsyncBaseTransport):
        """Connects to the address that the guard judged, whatever the name leads to a moment later."""

        def __init__(self) -> None:
            self._inner = httpx2.AsyncHTTPTransport(trust_env=False)

        async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
            host = request.url.host
            port = request.url.port or (443 if request.url.scheme == "https" else 80)
            address = (await guard.resolve(host, port))[0][1]
            pinned = httpx2.Request(
                request.method,
                request.url.copy_with(host=address),
                headers=request.headers,
                stream=request.stream,
                extensions={**request.extensions, "sni_hostname": host},
            )
            return await self._inner.handle_async_request(pinned)

        async def aclose(self) -> None:
            await self._inner.aclose()

    return httpx2.AsyncClient(transport=Pinned(), headers=headers, timeout=_TIMEOUT_S, trust_env=False)

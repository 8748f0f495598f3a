"""A crawler's tools on a real store, cookies in a test's hand, and sites on loopback."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from switchroom.crawler import job_store
from switchroom.crawler.cookies import Cookie
from switchroom.crawler.frontier import Frontier
from switchroom.crawler.jar import Key
from switchroom.crawler.job import Job, JobEvent, JobSpec, PageRecord
from switchroom.crawler.output import Output
from switchroom.crawler.render import BrowserPool
from switchroom.crawler.tools import Tools
from switchroom.net import GuardedClient
from switchroom.store import Store


@dataclass
class Cookies:
    """Cookies that a test holds in its hand."""

    version: int = 1
    cookies: tuple[Cookie, ...] = ()
    changes: dict[Key, Cookie | None] = field(default_factory=dict)

    async def read(self) -> Cookies:
        return self

    async def refresh(self, base_version: int, changes: dict[Key, Cookie | None]) -> None:
        self.changes.update(changes)


def module_beside(name: str) -> ModuleType:
    """A module of this folder that is no test."""
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, Path(__file__).parent / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


@pytest.fixture(scope="session")
def difficult() -> ModuleType:
    return module_beside("difficult_site")


@pytest.fixture
async def serve() -> AsyncIterator[Callable[[web.Application], Awaitable[TestServer]]]:
    """Starts sites on 127.0.0.1; each is closed at the end."""
    servers: list[TestServer] = []

    async def start(app: web.Application) -> TestServer:
        server = TestServer(app, host="127.0.0.1")
        await server.start_server()
        servers.append(server)
        return server

    yield start
    for server in servers:
        await server.close()


@pytest.fixture
def cookies() -> Cookies:
    return Cookies()


@pytest.fixture
async def tools(store: Store, data_dir: Path, cookies: Cookies) -> AsyncIterator[Tools]:
    # `localhost` is reached so that a redirect to another host is told apart from one to a forbidden address.
    client = GuardedClient(["127.0.0.1", "localhost"])
    pool = BrowserPool(client.guard)
    yield Tools(store=store, client=client, browsers=pool, cookies=cookies, output=Output(data_dir / "sites"))
    await pool.close()
    await client.close()


@pytest.fixture
def new_job(store: Store) -> Callable[..., Awaitable[Job]]:
    """A job on a site, started."""

    async def create(server: TestServer, start: str = "", **changes: object) -> Job:
        known: dict[str, object] = {"render": "never", **changes}
        spec = JobSpec(starts=(str(server.make_url("/" + start)),), hosts=(f"127.0.0.1:{server.port}",), **known)  # type: ignore[arg-type]
        job = await job_store.create_job(store, spec)
        return (await job_store.apply(store, job.id, JobEvent.START))[0]

    return create


@pytest.fixture
def records(store: Store) -> Callable[[Job], Awaitable[dict[str, PageRecord]]]:
    """What became of each URL of a job, by path and query."""

    async def read(job: Job) -> dict[str, PageRecord]:
        _, found = await Frontier(store, job.id, job.spec.max_pages).pages(count=5000)
        return {record.url.split("/", 3)[3]: record for record in found}

    return read

"""What the sidecar's handlers share, as typed keys of the application."""

from __future__ import annotations

import asyncio
from typing import Any

from aiohttp import web

from switchroom.crawler.tools import Tools
from switchroom.sidecar.cookies import CookieFile
from switchroom.sidecar.freshness import Freshness
from switchroom.sidecar.jobs import Jobs
from switchroom.sidecar.settings import SidecarSettings

SETTINGS = web.AppKey("settings", SidecarSettings)
COOKIES = web.AppKey("cookies", CookieFile)
JOBS = web.AppKey("jobs", Jobs)
TOOLS = web.AppKey("tools", Tools)
FRESHNESS = web.AppKey("freshness", Freshness)
STREAMS: web.AppKey[set[asyncio.Task[Any]]] = web.AppKey("streams", set)

"""Chromium, and the product as `tests/conformance` starts it."""

from __future__ import annotations

import asyncio
import importlib.util
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from playwright.async_api import Browser, async_playwright

from switchroom.crawler.render import find_chromium

_spec = importlib.util.spec_from_file_location(
    "conformance_fixtures", Path(__file__).parents[1] / "conformance" / "conftest.py"
)
assert _spec is not None and _spec.loader is not None
_shared = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_shared)
served, npm_packages = _shared.served, _shared.npm_packages


@pytest.fixture
async def chromium() -> AsyncIterator[Browser]:
    program = await asyncio.to_thread(find_chromium, None)
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=program,
            chromium_sandbox=os.geteuid() != 0,
            args=["--disable-gpu", "--disable-dev-shm-usage"],
        )
        yield browser
        await browser.close()

"""What `serve` was told reaches the processes that it starts, setting by setting."""

from __future__ import annotations

import os

import pytest

from switchroom.settings import Settings, load
from switchroom.supervisor import _environment

TOLD = [
    {},
    {
        "api_keys": ("k" * 32, "l" * 32),
        "outbound_allow": ("10.0.0.0/8", "*.corp.example"),
        "cc_hosts": ("unity.example",),
        "mcp_programs": ("npx -y @acme/mcp --roots a,b", 'tool "a b"'),
        "variables": {"greeting": 'Hello, "you"', "limit": 3, "on": True},
        "secrets_key": "s" * 40,
        "store_url": "redis://:p%2Cw@box:7000/2",
        "media_processes": 0,
        "allow_open": True,
    },
]


@pytest.mark.parametrize("told", TOLD)
def test_a_process_reads_what_serve_was_told(told: dict[str, object], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("SWITCHROOM_")]:
        monkeypatch.delenv(name)
    settings = load(**told)
    for name, text in _environment(settings).items():
        monkeypatch.setenv(name, text)
    assert Settings() == settings

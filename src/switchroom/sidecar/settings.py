"""What an operator sets about the sidecar; the root's settings fill it from the environment and TOML."""

from __future__ import annotations

import base64
import ipaddress
import re
from pathlib import Path
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator

from switchroom.settings_types import Secret

_TIME = re.compile(r"(?:[01]?\d|2[0-3]):[0-5]\d")
_HOST = re.compile(r"(?:\*\.)?[a-z0-9_](?:[a-z0-9_.-]{0,252})", re.IGNORECASE)


class CrawlSettings(BaseModel):
    """What crawls may do. `encryption_key`, where set, encrypts the cookie file. `allow_private` names the hosts
    (`intranet.example`, `*.corp.example`), addresses and networks that they may reach although they are not public.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    encryption_key: Secret = None
    allow_private: tuple[str, ...] = ()
    jobs: int = Field(default=2, ge=1, le=64, description="crawl jobs that run at once")
    workers: int = Field(default=8, ge=1, le=256, description="pages under way at once in one job")
    per_host: int = Field(default=4, ge=1, le=64, description="requests under way at once to one host")
    delay_s: float = Field(default=0.0, ge=0, le=60, description="least seconds between two requests to one host")
    browser_pages: int = Field(default=2, ge=1, le=32, description="browser pages open at once")
    chromium: Path | None = Field(default=None, description="the browser to start; found on PATH where not set")
    fresh_at: str | None = Field(
        default=None, description="when Always Fresh runs each day, like 03:30; never if not set"
    )
    fresh_zone: str | None = Field(default=None, description="the time zone of `fresh_at`; the server's own if not set")
    gone_days: float = Field(default=7.0, ge=0, le=3650, description="days that pages are kept after they are gone")
    verify_days: float = Field(
        default=7.0, gt=0, le=3650, description="days for which a sitemap's lastmod is believed that a page is the same"
    )
    job_days: float = Field(default=30.0, gt=0, le=3650, description="days that the records of finished jobs are kept")
    webhook_secret: Secret = None
    """Signs what jobs tell their webhooks (`whsec_` and base64); where not set, each job's own secret does."""
    max_cookie_bytes: int = Field(default=16_777_216, ge=1024, description="largest body of a cookie POST")
    max_pages: int = Field(default=20_000, ge=1, description="largest `max_pages` that a job may ask for")

    @field_validator("webhook_secret")
    @classmethod
    def _signs(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not signs(value.get_secret_value()):
            raise ValueError("is not whsec_ and the base64 of 24 to 64 bytes")
        return value

    @field_validator("fresh_at")
    @classmethod
    def _time_of_day(cls, value: str | None) -> str | None:
        if value and not _TIME.fullmatch(value.strip()):
            raise ValueError(f"'{value}' is no time of day like 03:30")
        return value.strip() if value else None

    @field_validator("fresh_zone")
    @classmethod
    def _known_zone(cls, value: str | None) -> str | None:
        if value:
            try:
                ZoneInfo(value)
            except (ZoneInfoNotFoundError, ValueError) as error:
                raise ValueError(f"'{value}' is no time zone like Europe/Ljubljana") from error
        return value or None

    @field_validator("allow_private")
    @classmethod
    def _readable(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for entry in value:
            try:
                ipaddress.ip_network(entry.strip().strip("[]"), strict=False)
            except ValueError:
                if not _HOST.fullmatch(entry.strip()) or entry.strip() == "*.":
                    raise ValueError(f"'{entry}' is no host, *.suffix, address or network") from None
        return value


class SidecarSettings(CrawlSettings):
    """Settings of the crawl host. `data_dir` holds the cookie file and the crawled sites. `ingest_secret`, where set,
    must come as `X-Ingest-Secret` on everything but health."""

    data_dir: Path
    ingest_secret: Secret = None


def signs(secret: object) -> bool:
    """Whether this is a signing secret of Standard Webhooks: `whsec_` and the base64 of 24 to 64 bytes."""
    if not isinstance(secret, str) or not secret.startswith("whsec_"):
        return False
    try:
        return 24 <= len(base64.b64decode(secret.removeprefix("whsec_"), validate=True)) <= 64
    except ValueError:
        return False

"""Settings: environment `SWITCHROOM_*` (nested with `__`), a TOML file, and their defaults. The environment wins."""

from __future__ import annotations

import ipaddress
import os
import shlex
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
    TomlConfigSettingsSource,
)

from switchroom.engine.providers.embeddings import EmbeddingSettings
from switchroom.engine.providers.settings import ProviderSettings, check_providers
from switchroom.realtime.settings import MediaSettings
from switchroom.settings_types import Secret
from switchroom.sidecar.settings import CrawlSettings
from switchroom.store.address import Target

CONFIG_VARIABLE = "SWITCHROOM_CONFIG"
_MEDIA_UNASKED = 4

Words = Annotated[tuple[str, ...], NoDecode]
"""A tuple in TOML; in the environment words with commas between them."""


class Settings(BaseSettings):
    """Everything that an operator can set. See README.md for the ones that matter first."""

    model_config = SettingsConfigDict(
        env_prefix="SWITCHROOM_", env_nested_delimiter="__", extra="forbid", frozen=True, toml_file=None
    )

    data: Path = Path("switchroom-data")
    """Folder of everything durable: the store, recordings, crawled pages."""
    host: str = "127.0.0.1"
    port: int = Field(default=8090, ge=0, le=65535)
    """0 takes a free one; the `ready` line says which."""
    public_url: str | None = None
    """Where others reach the API, when that is another address than `host` and `port` (a proxy in front of it):
    offers to Unity clients and the streams of telephone calls name it."""
    sidecar_host: str = "127.0.0.1"
    sidecar_port: int = Field(default=8091, ge=0, le=65535)

    store_url: str | None = None
    """Your own Valkey or Redis >= 7: `redis://`, `rediss://`, `unix://`, a cluster as `redis+cluster://host:port,host:port/`,
    a Sentinel group as `redis+sentinel://host:port,host:port/service`; none: the embedded server."""
    replicas_ack: int = Field(default=0, ge=0, le=16)
    """A write counts once so many replicas of your own store have it."""
    fsync: Literal["always", "everysec"] = "always"
    """How the embedded server writes its file: before each answer, or once a second."""

    api_keys: Annotated[tuple[SecretStr, ...], NoDecode] = ()
    """API keys, each of 16 characters or more; in the environment with commas between them."""
    allow_open: bool = False
    """Serve without any key on an address that is not loopback. Only behind something that asks for one."""
    ingest_secret: Secret = None
    """What `X-Ingest-Secret` must hold on the sidecar."""
    secrets_key: Secret = None
    """Encrypts the signing secrets of webhooks in the store (without it they stand there in clear), and recordings if
    `media.record_encrypted` is set."""
    notify_secret: SecretStr | None = Field(default=None, min_length=32)
    """What `X-Notify-Secret` must hold at the notify hub (`/ws`); without it the hub is off."""
    notify_open: bool = False
    """The notify hub asks for no secret. For development only."""
    twilio_auth_token: Secret = None
    """Of the Twilio account whose numbers lead here: requests at `/api/v1/twilio` must carry its signature (or an API
    key)."""
    outbound_allow: Words = ()
    """Hosts and networks that are not public and may be called all the same (`ccBaseUrl`, `callbackUrl`, HTTP nodes and
    tools of flows)."""
    cc_hosts: Words = ()
    """The only hosts, `*.suffixes` and networks that a `ccBaseUrl` may name; none: any that may be called."""

    embeddings: EmbeddingSettings | None = None
    """The service that gives knowledge its vectors (`model`, `base_url`, `api_key`); without one, words alone do."""
    providers: dict[str, ProviderSettings] = {}
    """Model services by name, as JSON in the environment or as tables in TOML; with none the embedded responder
    answers."""
    mcp_programs: tuple[str, ...] = ()
    """Command lines of MCP servers that a canvas may have started, word for word (in the environment a JSON list:
    `["npx -y @acme/mcp"]`). They run as this server's user: list none that you would not start yourself."""
    turn_timeout_s: float = Field(default=120.0, gt=0, le=240)
    """How long a text turn may take, with all its models, requests and waits."""
    variables: dict[str, str | int | float | bool] = {}
    """What `{{$vars.x}}` reads in every flow, under a flow's own variables and those of a turn."""

    media_processes: int | None = Field(default=None, ge=0, le=64)
    """How many `serve` runs; none: one a core, at most four unasked, since each loads the speech models (300 MB)."""
    media: MediaSettings = MediaSettings()
    crawl: CrawlSettings = CrawlSettings()

    max_body_bytes: int = Field(default=1 << 20, ge=1_024)
    max_bulk_lines: int = Field(default=1_000_000, ge=1)
    """Lines that one bulk enqueue takes."""
    record_days: int = Field(default=30, ge=1)
    """Executions and recordings are removed after so many days."""
    recording_days: int | None = Field(default=None, ge=1)
    """The audio alone is removed after so many days, its record stays; none: it is kept as long as the record."""
    call_hours: int = Field(default=24, ge=1)
    """An ended call is told by `queue/status` for so many hours; its execution record stays longer."""

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["text", "json"] = "text"
    log_pii: bool = False
    """Let caller IDs and the like into the log."""

    @field_validator("api_keys", "outbound_allow", "cc_hosts", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        if isinstance(value, str):
            return tuple(word.strip() for word in value.split(",") if word.strip())
        return value

    @field_validator("mcp_programs")
    @classmethod
    def _split_as_a_shell_does(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for line in value:
            try:
                words = shlex.split(line)
            except ValueError as error:
                raise ValueError(f"{line!r} is no command line: {error}") from error
            if not words:
                raise ValueError("a command line is blank")
        return value

    @field_validator("api_keys")
    @classmethod
    def _long_enough(cls, value: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
        if any(len(key.get_secret_value()) < 16 for key in value):
            raise ValueError("each key needs 16 characters or more")
        return value

    @field_validator("providers")
    @classmethod
    def _providers_fit(cls, value: dict[str, ProviderSettings]) -> dict[str, ProviderSettings]:
        check_providers(value)
        return value

    @field_validator("store_url")
    @classmethod
    def _known_scheme(cls, value: str | None) -> str | None:
        if value and (tls := Target.from_url(value).primary.tls) is not None:
            try:
                tls.context()
            except OSError as error:
                raise ValueError(str(error)) from error
        return value or None

    @property
    def media_count(self) -> int:
        """Media processes that `serve` starts here."""
        if self.media_processes is not None:
            return self.media_processes
        return min(_MEDIA_UNASKED, len(os.sched_getaffinity(0)))

    @model_validator(mode="after")
    def _replicas_somewhere(self) -> Self:
        if self.replicas_ack and self.store_url is None:
            raise ValueError("replicas_ack needs a store of yours (store_url): the embedded server has no replicas")
        return self

    @model_validator(mode="after")
    def _recordings_key(self) -> Self:
        if self.media.record_encrypted and self.secrets_key is None:
            raise ValueError("media.record_encrypted needs secrets_key: recordings are encrypted under it")
        return self

    @model_validator(mode="after")
    def _guarded(self) -> Self:
        if not self.api_keys and not self.allow_open and not is_loopback(self.host):
            raise ValueError(
                f"host {self.host} is not loopback and no API key is set: set SWITCHROOM_API_KEYS, or allow_open if "
                "something in front of it asks for keys"
            )
        if self.ingest_secret is None and not self.allow_open and not is_loopback(self.sidecar_host):
            raise ValueError(
                f"sidecar_host {self.sidecar_host} is not loopback and no ingest secret is set: set "
                "SWITCHROOM_INGEST_SECRET"
            )
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        path = os.environ.get(CONFIG_VARIABLE)
        toml = (TomlConfigSettingsSource(settings_cls, toml_file=Path(path)),) if path else ()
        return (init_settings, env_settings, *toml)


class WrongSettings(Exception):
    """A setting that cannot be used: one line that names it."""


def load(**given: Any) -> Settings:
    """The settings; `given` (options of the command line that are not None) win. Raises `WrongSettings`."""
    path = os.environ.get(CONFIG_VARIABLE)
    if path and not Path(path).is_file():
        raise WrongSettings(f"{CONFIG_VARIABLE}: there is no file {path}")
    try:
        return Settings(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        raise WrongSettings("; ".join(_sentence(fault) for fault in error.errors(include_url=False))) from error
    except (
        SettingsError,
        ValueError,
    ) as error:  # a TOML file that does not parse, JSON in the environment that is none
        raise WrongSettings(str(error)) from error


def _sentence(fault: Any) -> str:
    """One fault as `SWITCHROOM_PORT: …`; the value is left out, since it may be a secret."""
    name = "__".join(str(part) for part in fault["loc"])
    message = str(fault["msg"]).removeprefix("Value error, ")
    return f"SWITCHROOM_{name.upper()}: {message}" if name else message


def is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False

"""The crawl host's own application: cookie ingest and crawl jobs."""

from switchroom.sidecar.app import build_sidecar
from switchroom.sidecar.settings import SidecarSettings

__all__ = ["SidecarSettings", "build_sidecar"]

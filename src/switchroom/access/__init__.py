"""Access: API keys, what they may do, and the check of each request."""

from switchroom.access.access import Access, KeyRecord, Principal, presented_key
from switchroom.scopes import ALL_SCOPES, Scope

__all__ = ["ALL_SCOPES", "Access", "KeyRecord", "Principal", "Scope", "presented_key"]

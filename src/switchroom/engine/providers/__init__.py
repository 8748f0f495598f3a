"""Model services behind Agents and LLMs: any that speaks OpenAI's chat completions."""

from switchroom.engine.providers.models import Models
from switchroom.engine.providers.settings import ProviderSettings, check_providers

__all__ = ["Models", "ProviderSettings", "check_providers"]

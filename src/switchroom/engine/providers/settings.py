"""Which model services there are, as an operator sets them."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, HttpUrl, SecretStr, model_validator

__all__ = ["FAMILIES", "ProviderSettings", "check_providers"]

FAMILIES: dict[str, tuple[str, ...]] = {
    "openai": ("chatOpenAI", "chatOpenAICustom", "openAI"),
    "azure": ("azureChatOpenAI",),
    "anthropic": ("chatAnthropic",),
    "google": ("chatGoogleGenerativeAI", "chatGoogleVertexAI"),
    "mistral": ("chatMistralAI",),
    "groq": ("groqChat",),
    "ollama": ("chatOllama",),
    "localai": ("chatLocalAI",),
    "deepseek": ("chatDeepseek",),
    "openrouter": ("chatOpenRouter",),
    "together": ("chatTogetherAI",),
    "xai": ("chatXAI",),
    "cerebras": ("chatCerebras",),
    "nvidia": ("chatNvdiaNIM", "chatNvidiaNIM"),
    "bedrock": ("awsChatBedrock",),
}
"""Names that canvases give to models, by the provider name that serves them without a word in its settings."""


class ProviderSettings(BaseModel):
    """A service that speaks OpenAI's chat completions.

    `serves` are the canvas's model names that it answers for (`*`: every one that no other provider serves); by default
    those of `FAMILIES` under the provider's own name. `models` maps a canvas's model to this service's. `fallback` are
    providers tried in order when this one does not answer. `timeout_s` bounds one answer, `retries` the tries after the
    first, with jitter, before any text came. `structured`: how the service takes the shape of a structured answer.
    `accepts`: what its models take beside text.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    base_url: HttpUrl = HttpUrl("https://api.openai.com/v1")
    api_key: SecretStr = SecretStr("")
    serves: tuple[str, ...] = ()
    models: dict[str, str] = {}
    default_model: str = ""
    timeout_s: float = Field(default=60.0, gt=0, le=600)
    retries: int = Field(default=2, ge=0, le=10)
    fallback: tuple[str, ...] = ()
    accepts: tuple[Literal["image", "audio"], ...] = ("image",)
    structured: Literal["json_schema", "json_object"] = "json_schema"
    api_version: str = ""
    """Azure's `api-version`: set, the base URL is an Azure resource and models are its deployments."""
    max_tool_rounds: int = Field(default=10, ge=1, le=100)

    @model_validator(mode="after")
    def _names(self) -> Self:
        if any(not name.strip() for name in (*self.serves, *self.fallback)):
            raise ValueError("a name of `serves` or `fallback` is blank")
        return self


def check_providers(providers: dict[str, ProviderSettings]) -> None:
    """Raises ValueError when a fallback names nobody, or two providers serve the same name."""
    served: dict[str, str] = {}
    for name, settings in providers.items():
        for other in settings.fallback:
            if other not in providers or other == name:
                raise ValueError(f"provider {name}: its fallback {other} is no other provider")
        for model in settings.serves or FAMILIES.get(name, ()):
            if served.setdefault(model, name) != name:
                raise ValueError(f"providers {served[model]} and {name} both serve {model}")

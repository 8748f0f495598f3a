"""Types of settings that stand in several rooms."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, SecretStr


def _unless_blank(value: SecretStr | None) -> SecretStr | None:
    return value if value is not None and value.get_secret_value() else None


Secret = Annotated[SecretStr | None, AfterValidator(_unless_blank)]
"""An empty environment variable means "not set", not "the empty secret"."""

"""One module a provider: its requests, in the provider-neutral form. Found by name."""

from __future__ import annotations

from tapes_cli.capture.providers.anthropic import Anthropic
from tapes_cli.capture.providers.base import Provider
from tapes_cli.capture.providers.ollama import Ollama
from tapes_cli.capture.providers.openai import OpenAI

PROVIDERS: dict[str, Provider] = {
    provider.name: provider for provider in (Anthropic(), OpenAI(), Ollama())
}
"""The supported providers by the name that a turn record gives."""

__all__ = ["PROVIDERS", "Provider"]

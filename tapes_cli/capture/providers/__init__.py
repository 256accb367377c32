"""What providers say, in the provider-neutral form. Found by name, or by a request's path."""

from __future__ import annotations

from tapes_cli.capture.providers.anthropic import Anthropic
from tapes_cli.capture.providers.base import Provider
from tapes_cli.capture.providers.gemini import Gemini
from tapes_cli.capture.providers.ollama import Ollama
from tapes_cli.capture.providers.openai import OpenAI

PROVIDERS: dict[str, Provider] = {
    provider.name: provider for provider in (Anthropic(), OpenAI(), Ollama(), Gemini())
}
"""The supported providers by the name that a turn record gives."""

__all__ = ["PROVIDERS", "Provider"]

"""Configuration of the random agent."""

from __future__ import annotations

from m3po.api import AgentConfig

__all__ = ["RandomConfig"]


class RandomConfig(AgentConfig):
    """Uniform random actions: a floor for every table. There is nothing to set."""

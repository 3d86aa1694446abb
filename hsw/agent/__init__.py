"""The training loops."""

from hsw.agent.base import Agent
from hsw.agent.on_policy import OnPolicyAgent

__all__ = ["Agent", "OnPolicyAgent"]

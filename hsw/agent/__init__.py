"""The training loops."""

from hsw.agent.base import Agent
from hsw.agent.distributed import DistributedAgent
from hsw.agent.off_policy import OffPolicyAgent
from hsw.agent.on_policy import OnPolicyAgent
from hsw.agent.pool import ProcessPool
from hsw.agent.ray_pool import RayPool

__all__ = ["Agent", "DistributedAgent", "OffPolicyAgent", "OnPolicyAgent", "ProcessPool", "RayPool"]

"""Memory between acting and learning."""

from hsw.storage.base import Storage
from hsw.storage.decoupled import DecoupledRolloutStorage
from hsw.storage.rollout import RolloutStorage

__all__ = ["DecoupledRolloutStorage", "RolloutStorage", "Storage"]

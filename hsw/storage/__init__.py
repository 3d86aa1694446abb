"""Memory between acting and learning."""

from hsw.storage.base import Storage
from hsw.storage.decoupled import DecoupledRolloutStorage
from hsw.storage.distributed import DistributedStorage
from hsw.storage.her import HerReplayStorage
from hsw.storage.prioritized import PrioritizedReplayStorage
from hsw.storage.replay import ReplayStorage
from hsw.storage.rollout import RolloutStorage
from hsw.storage.sequences import SequenceRolloutStorage
from hsw.storage.two_streams import TwoStreamRolloutStorage

__all__ = [
    "DecoupledRolloutStorage",
    "DistributedStorage",
    "HerReplayStorage",
    "PrioritizedReplayStorage",
    "ReplayStorage",
    "RolloutStorage",
    "SequenceRolloutStorage",
    "Storage",
    "TwoStreamRolloutStorage",
]

"""A Ray cluster of raylets on this machine, whose nodes are added and lost."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

STORE = 200_000_000
FAST = {"health_check_period_ms": 1000, "health_check_timeout_ms": 5000, "health_check_failure_threshold": 4}


class Nodes:
    """A cluster of raylets on this machine: a head, and nodes that are added and lost."""

    def __init__(self, head_cpus: int = 0, *others: int) -> None:
        from ray.cluster_utils import Cluster

        head = {"num_cpus": head_cpus, "object_store_memory": STORE, "include_dashboard": False}
        self._cluster = Cluster(initialize_head=True, head_node_args={**head, "_system_config": FAST})
        self.address = self._cluster.address
        self.nodes = [self.add(cpus) for cpus in others]

    def add(self, num_cpus: int) -> Any:
        return self._cluster.add_node(num_cpus=num_cpus, object_store_memory=STORE)

    def lose(self, node: Any) -> None:
        self._cluster.remove_node(node, allow_graceful=False)

    def lose_head(self) -> None:
        """The process that all others ask; the head's raylet, which is the learner's, stays."""
        self._cluster.head_node.kill_gcs_server()

    def shutdown(self) -> None:
        self._cluster.shutdown()


@contextlib.contextmanager
def cluster(*cpus: int) -> Iterator[Nodes]:
    nodes = Nodes(*cpus)
    try:
        yield nodes
    finally:
        nodes.shutdown()

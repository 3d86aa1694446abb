"""The wait for places on a cluster: told, and bounded; and the watch over its head."""

from __future__ import annotations

import time

from hsw.agent.actor import log
from hsw.agent.ray_cluster import RayCluster

_ASKING = 15.0  # seconds between looks at the cluster's head
_PATIENCE = 10.0  # seconds of waiting after which it is told, and again after ever longer ones


class Places:
    """How long actors have had no place.

    At the start every actor has to find one within the timeout; later on it is enough that one has.

    Args:
        cluster: Where places are.
        num_actors: That want one.
        num_cpus: That each needs.
        timeout: Seconds.
    """

    def __init__(self, cluster: RayCluster, num_actors: int, num_cpus: float, timeout: float) -> None:
        self._cluster, self._num_actors, self._num_cpus, self._timeout = cluster, num_actors, num_cpus, timeout
        self._complete = False  # every actor has had a place
        self._waiting_since = self._lacking_since = self._asked = time.monotonic()  # some have none; too many have none
        self._patience = _PATIENCE

    def look(self, waiting: int) -> str:
        """Tell of actors without a place, if it is time to.

        Args:
            waiting: How many have none.

        Returns:
            Why the run cannot go on, as a sentence; empty if it can.
        """
        now = time.monotonic()
        self._complete = self._complete or not waiting
        lacking = waiting == self._num_actors or not self._complete
        if not waiting:
            self._waiting_since, self._patience = now, _PATIENCE
        if not lacking:
            self._lacking_since = now
        over = now - self._lacking_since > self._timeout
        if now - self._asked > _ASKING:
            self._asked = now
            if not self._cluster.shortage() and not self._cluster.shortage():
                # Ray has no other. Its nodes give up after a minute, and this process with them, without a word.
                return f"the head of {self._cluster.name} does not answer, and actors cannot be replaced any more"
        if not over and now - self._waiting_since <= self._patience:
            return ""
        self._patience = 2 * max(now - self._waiting_since, _PATIENCE)
        has = self._cluster.shortage() or "its head does not answer"
        each = f"each needs {self._num_cpus:g} CPU{'s' * (self._num_cpus != 1)}"
        missing = f"{waiting} of {self._num_actors} actors are not there: {each}, and {has}"
        if over:
            return (
                f"{missing}; pool.start_timeout={self._timeout:g} s are over; add nodes, or lower agent.num_actors or "
                "pool.num_cpus_per_actor"
            )
        left = self._timeout - (now - self._lacking_since)
        hope = f"the run waits for {left:.0f} s more, and goes on when they come"
        others = "the run goes on with the others, and with these if they come"
        log.warning("%s; %s", missing, hope if lacking else others)
        return ""

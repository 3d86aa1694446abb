"""What is tried: functions of a generator and of a store of undisturbed runs, which raise Broken, and how often."""

from __future__ import annotations

from tests.faults.campaign.data import DATA
from tests.faults.campaign.environments import ENVIRONMENTS
from tests.faults.campaign.kills import KILLS
from tests.faults.campaign.scarcity import SCARCITY
from tests.faults.campaign.server import carrying

__all__ = ["FAMILIES", "carrying"]

FAMILIES = {**KILLS, **ENVIRONMENTS, **SCARCITY, **DATA}

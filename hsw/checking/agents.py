from typing import Any
from hsw.checking.findings import Report
def check_agent(composed: Any, keys: set[str]) -> Report:
    return Report()

"""What a run tells those who watch it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar


class Callback:
    """Is told of what happens in a run, and may ask it to stop: `agent.request_stop("why")`.

    Every event comes exactly once, also where a run is stopped by a signal and resumed. Derive from this class and
    write the methods that are of interest; the others do nothing. What state_dict returns goes into every checkpoint.
    An error that a callback raises ends the run as any other does.

    Where several ranks train together, rank 0 tells its callbacks, and the others wait. One that changes what is
    trained, such as a learning rate, must do so on all: it has every_rank = True.
    """

    every_rank: ClassVar[bool] = False

    def on_run_start(self, agent: Any) -> None:
        """Training begins, or goes on.

        Args:
            agent: The loop (hsw.agent.Agent): its step, policy, env and services. session counts the run's starts from
                1; after a resume state_dict has been restored.
        """

    def on_run_end(self, agent: Any, error: BaseException | None) -> None:
        """Training ended.

        Args:
            agent: The loop.
            error: What ended it, a signal (hsw.errors.Interrupted) or a fault; None if it is done.
        """

    def on_iteration_end(self, agent: Any, metrics: dict[str, float]) -> None:
        """A row of metrics was logged: after every update of the on-policy loop, every log_interval of the others.

        Args:
            agent: The loop, at the row's step.
            metrics: The row.
        """

    def on_evaluation_end(self, agent: Any, scores: dict[str, Any]) -> None:
        """An evaluation was logged.

        Args:
            agent: The loop.
            scores: mean, std, min, max, returns, lengths, and success in environments that tell.
        """

    def on_checkpoint(self, agent: Any, path: Path) -> None:
        """A checkpoint was written; what a callback changes now is in the next one.

        Args:
            agent: The loop.
            path: The checkpoint's folder.
        """

    def state_dict(self) -> dict[str, Any]:
        """What continues this callback on resume: tensors and JSON values."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what state_dict returned."""

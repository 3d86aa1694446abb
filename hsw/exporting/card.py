"""README.md of an exported policy: a model card, as the Hugging Face Hub reads it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import yaml

from hsw import __version__
from hsw.secrets import redact
from hsw.trained import TrainedPolicy

_TEXT = """
# {agent} on {env}

A policy that [hsw](https://pypi.org/project/hsw/) {version} has trained for {step:,} environment steps, seed {seed}.

| | |
|---|---|
| return, {episodes} episodes that it was not trained on, most likely actions | {mean:.2f} ± {std:.2f} (mean, standard deviation) |
| from {least:.2f} to {most:.2f} | {lengths} steps an episode on average |
| exported against trained, on {observations:,} observations | largest difference {difference:.1e}, {equal:,} equal actions{close} |

{video}`policy.json` says what goes into the policy and what comes out; normalisation and action bounds are inside. Frames
are stacked outside{stack}, and the wrappers that it lists are the environment's. `config.yaml` is the whole configuration:
with hsw, `python -m hsw.train` with its values trains such a policy again.

```python
import gymnasium, numpy, onnxruntime

policy = onnxruntime.InferenceSession("policy.onnx")
env = gymnasium.make("{id}")
obs, _ = env.reset(seed=1)
action = policy.run(["action"], {{"obs": numpy.asarray(obs)[None]}})[0][0]
```

Files: {files}.
"""


def card(
    trained: TrainedPolicy, scores: dict[str, Any], parity: dict[str, Any], files: Sequence[str], video: bool
) -> str:
    """The card's text.

    Args:
        trained: Whose it is.
        scores: Of its evaluation.
        parity: As parity.json has it.
        files: Beside it.
        video: Whether replay.mp4 is among them.
    """
    config = trained.config
    env = _word(config.env.get("id") or config.env.get("game") or config.env._target_)
    agent = _word(str(config.algorithm._target_).rpartition(".")[2])
    value = f"{scores['mean']:.2f} +/- {scores['std']:.2f}"
    metric = {"type": "mean_reward", "name": "mean_reward", "value": value, "verified": False}
    result = {
        "task": {"type": "reinforcement-learning", "name": "reinforcement-learning"},
        "dataset": {"name": env, "type": env},
        "metrics": [metric],
    }
    head = {
        "library_name": "hsw",
        "tags": [env, agent, "reinforcement-learning", "hsw"],
        "model-index": [{"name": agent, "results": [result]}],
    }
    stack = config.env.get("frame_stack") or 1
    close = f", {parity['close_calls']:,} close calls" if parity["close_calls"] else ""
    text = _TEXT.format(
        agent=agent,
        env=env,
        id=env,
        version=__version__,
        step=trained.step,
        seed=config.seed,
        episodes=scores["episodes"],
        mean=scores["mean"],
        std=scores["std"],
        least=scores["min"],
        most=scores["max"],
        lengths=f"{sum(scores['lengths']) / len(scores['lengths']):.0f}",
        observations=parity["observations"],
        difference=parity["max_difference"],
        equal=parity["equal_actions"],
        close=close,
        video="[An episode](replay.mp4). " if video else "",
        stack=f" ({stack} of them)" if stack > 1 else "",
        files=", ".join(f"`{name}`" for name in files),
    )
    return redact(f"---\n{yaml.safe_dump(head, sort_keys=False, allow_unicode=True)}---\n{text}")


def _word(name: Any) -> str:
    """A name as Markdown and YAML take it: nothing in it is markup."""
    return re.sub(r"[^\w./:-]", "_", str(name))[:100]

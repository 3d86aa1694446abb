"""README.md of an exported policy: a model card, as the Hugging Face Hub reads it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import yaml

import hsw
from hsw.secrets import redact
from hsw.trained import TrainedPolicy

_TEXT = """
# {agent} on {env}

A policy that [hsw](https://pypi.org/project/hsw/) {version} has trained for {step:,} environment steps, seed {seed}.

| | |
|---|---|
| return, {episodes} episodes, mean ± standard deviation | {mean:.2f} ± {std:.2f} |
| from, to | {least:.2f}, {most:.2f} |
| steps an episode | {lengths} |
| observations on which the exported policy was held against the trained one | {observations:,} |
| largest difference, and equal actions | {difference:.1e}, {equal:,}{close} |

Episodes are of seeds that it was not trained on, and actions the most likely ones.

{video}`policy.json` says what goes into the policy and what comes out; normalisation and action bounds are inside.
Frames are stacked outside{stack}, and the wrappers that it lists are the environment's. `config.yaml` is the whole
configuration of the run.

{snippet}Files: {files}.
"""

_SNIPPET = """```python
import gymnasium, numpy, onnxruntime

policy = onnxruntime.InferenceSession("policy.onnx")
env = gymnasium.make("{id}")
obs, _ = env.reset(seed=1)
action = policy.run(["action"], {{"obs": numpy.asarray(obs)[None]}})[0][0]
```

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
    plain = parity["format"] == "onnx" and config.observation_space.get("type") != "Dict" and stack == 1
    plain = plain and trained.policy.initial_memory(1) is None
    text = _TEXT.format(
        agent=agent,
        env=env,
        snippet=_SNIPPET.format(id=env) if plain else "",
        version=hsw.__version__,
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

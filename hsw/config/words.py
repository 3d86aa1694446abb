"""The key that a misspelt one, or another library's, most likely means."""

from __future__ import annotations

import difflib
from collections.abc import Collection

# What other libraries call it, and how it is called here: the first of these that the config has.
SYNONYMS: dict[str, tuple[str, ...]] = {
    "learning_rate": ("algorithm.lr",),
    "total_timesteps": ("num_train_steps",),
    "num_timesteps": ("num_train_steps",),
    "total_steps": ("num_train_steps",),
    "max_steps": ("num_train_steps",),
    "n_envs": ("env.num_envs",),
    "env_id": ("env.id",),
    "env_name": ("env.id",),
    "env_kwargs": ("env.kwargs",),
    "gamma": ("storage.discount",),
    "batch_size": ("storage.batch_size", "algorithm.num_mini_batch"),
    "minibatch_size": ("storage.batch_size", "algorithm.num_mini_batch"),
    "nminibatches": ("algorithm.num_mini_batch",),
    "num_minibatches": ("algorithm.num_mini_batch",),
    "n_steps": ("storage.num_steps", "storage.n_step"),
    "rollout_length": ("storage.num_steps",),
    "unroll_length": ("storage.num_steps",),
    "n_epochs": ("algorithm.num_epochs",),
    "update_epochs": ("algorithm.num_epochs",),
    "ent_coef": ("algorithm.entropy_coef", "algorithm.alpha"),
    "vf_coef": ("algorithm.value_coef",),
    "clip_coef": ("algorithm.clip_range",),
    "clip_range_vf": ("algorithm.value_clip_range",),
    "lam": ("storage.gae_lambda",),
    "lambda": ("storage.gae_lambda",),
    "anneal_lr": ("algorithm.lr_schedule",),
    "norm_adv": ("algorithm.normalize_advantages",),
    "buffer_size": ("storage.storage_size",),
    "replay_size": ("storage.storage_size",),
    "learning_starts": ("agent.num_warmup_steps",),
    "gradient_steps": ("agent.updates_per_step",),
    "train_freq": ("agent.updates_per_step",),
    "n_sampled_goal": ("storage.num_goals",),
    "eval_freq": ("eval_interval",),
    "n_eval_episodes": ("eval_episodes",),
    "save_freq": ("checkpoint_interval",),
    "verbose": ("quiet",),
    "net_arch": ("network.hidden_sizes",),
    "policy_kwargs": ("network.hidden_sizes",),
    "normalize_observations": ("env.normalize_obs", "network.normalize_obs"),
    "experiment": ("experiments",),
    "study": ("experiments",),
    "num_actors": ("agent.num_actors", "env.num_envs"),
    "num_workers": ("agent.num_actors", "env.num_envs"),
}


def meant(name: str, candidates: Collection[str]) -> str:
    """The end of a sentence that says what a key may have meant, or nothing."""
    guess = nearest(name, candidates)
    return f"; did you mean {guess}?" if guess and guess != name else ""


def nearest(name: str, candidates: Collection[str]) -> str | None:
    """The candidate that a misspelt dotted name most likely means: the same leaf elsewhere, else the closest name."""
    leaf = name.rpartition(".")[2]
    group = name.rpartition(".")[0]
    for word in SYNONYMS.get(leaf.lower(), ()):
        if word in candidates and word != name:
            return word
    leaves: dict[str, str] = {}  # by leaf: the one in the same group, else the least nested
    for candidate in sorted(candidates, key=lambda c: (c.rpartition(".")[0] != group, c.count("."))):
        leaves.setdefault(candidate.rpartition(".")[2], candidate)
    siblings = {key: whole for key, whole in leaves.items() if whole.rpartition(".")[0] == group}
    same_leaf = [leaves[leaf]] if leaf in leaves else []
    close = [known[near] for known in (siblings, leaves) for near in difflib.get_close_matches(leaf, known, 1, 0.7)]
    found = next(iter(same_leaf + close), None)
    if found or not group or group in candidates:
        return found
    return nearest(group, candidates)  # a key within what is misspelt: env.kwarg.size

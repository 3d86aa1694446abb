# %% [markdown]
# hsw from Python: compose a config, train, load what was learnt, act with it, evaluate it, plot it.
# Run it as a script (`python examples/quickstart.py`), or cell by cell in an editor that knows `# %%`.

# %% A config is composed as on the command line, and checked at once
import tempfile
from pathlib import Path

import gymnasium as gym

import hsw

config = hsw.compose(["agent=ppo", "env=cartpole", "num_train_steps=3000", "eval_interval=1000", "device=cpu"])
print("learning rate:", config.algorithm.lr)

# %% It makes an agent, and the agent trains for the config's budget, in a folder
folder = Path(tempfile.mkdtemp()) / "quickstart"
agent = hsw.make(config, folder)
scores = agent.train()
print(f"after {agent.step} steps: return {scores['mean']:.1f}")

# %% The folder is a run like any other: python -m hsw.eval <folder>, python -m hsw.train resume=<folder>
policy = hsw.load(folder, checkpoint="best")
print("the best evaluation was at step", policy.step)

# %% It acts on the environment's own observations
env = gym.make("CartPole-v1")
obs, _ = env.reset(seed=1)
policy.reset()  # an episode begins
episode_return, done = 0.0, False
while not done:
    obs, reward, terminated, truncated, _ = env.step(policy.act(obs))
    episode_return += float(reward)
    done = terminated or truncated
print("an episode of our own:", episode_return)

# %% ... or plays whole episodes on seeds that it was not trained on
print(f"10 episodes: {policy.evaluate(10)['mean']:.1f}")

# %% The metrics, as a pandas frame where pandas is installed, and a plot where matplotlib is
metrics = policy.metrics
print(f"{len(metrics)} rows of metrics")
try:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    import pandas as pd
except ImportError:
    print("no plot: pip install 'hsw[report]'")
else:
    curve = pd.DataFrame(metrics)[["step", "eval/return_mean"]].dropna()
    curve.plot(x="step", y="eval/return_mean", marker="o")
    plt.savefig(folder / "curve.png")
    print("the curve:", folder / "curve.png")

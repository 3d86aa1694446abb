"""Play an exported policy with NumPy, ONNX Runtime and Gymnasium alone: python play_exported.py <folder> [episodes]."""

import json
import sys
from pathlib import Path

import gymnasium as gym
import numpy as np
import onnxruntime

if not sys.argv[1:] or sys.argv[1] in ("-h", "--help"):
    sys.exit(__doc__)
sys.path.insert(0, ".")  # an id such as my_pkg.envs:Maze-v0 imports its module, of the folder where this is typed
folder, episodes = Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 20
told = json.loads((folder / "policy.json").read_text())
session = onnxruntime.InferenceSession(folder / told["file"])
taken, names = {port.name for port in session.get_inputs()}, [port["name"] for port in told["outputs"]]
env, returns = gym.make(told["env"]["id"], **told["env"]["kwargs"]), []


def parts(obs, name="obs"):
    """An observation as inputs: obs, or obs.<key> for each part of a dict."""
    if isinstance(obs, dict):
        return {key: value for part in obs for key, value in parts(obs[part], f"{name}.{part}").items()}
    return {name: np.asarray(obs)[None]}


for episode in range(episodes):
    (obs, _), total, done = env.reset(seed=10_000 + episode), 0.0, False
    shapes = {port["name"]: [1 if size == "batch" else size for size in port["shape"]] for port in told["inputs"]}
    inputs = {port["name"]: np.zeros(shapes[port["name"]], port["dtype"]) for port in told["inputs"]}
    inputs["start"] = np.array([True])  # of use to policies with a memory, as is what follows
    while not done:
        inputs |= {key: value.astype(inputs[key].dtype) for key, value in parts(obs).items()}
        outputs = dict(zip(names, session.run(names, {key: inputs[key] for key in taken}), strict=True))
        obs, reward, terminated, truncated, _ = env.step(outputs["action"][0])
        inputs |= {key.removeprefix("next_"): value for key, value in outputs.items() if key.startswith("next_")}
        inputs |= {"start": np.array([False]), "last_reward": np.array([reward], np.float32)}
        total, done = total + float(reward), terminated or truncated
    returns.append(total)
print(json.dumps({"mean": float(np.mean(returns)), "returns": returns}))

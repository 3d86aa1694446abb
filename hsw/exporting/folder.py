"""The folder in which a policy is handed on: the layout of a model repository on the Hugging Face Hub."""

from __future__ import annotations

import json
import logging
import os
import shutil
import tempfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from safetensors.torch import save
from torch import Tensor

import hsw
from hsw.build import build_env
from hsw.config.plugins import only_trusted
from hsw.errors import ConfigError, HswError, ResourceError, words_of
from hsw.exporting import formats
from hsw.exporting.card import card
from hsw.exporting.graph import ActingGraph
from hsw.exporting.parity import CLOSE, hold
from hsw.network.forward import adapt
from hsw.run.provenance import machine, versions
from hsw.secrets import redact_all
from hsw.trained import TrainedPolicy, load_trained

log = logging.getLogger("hsw")


def export_run(
    folder: Path,
    out: Path,
    form: str = "onnx",
    checkpoint: str | int = "last",
    episodes: int = 20,
    observations: int = 1000,
    allow: Sequence[str] = (),
    video: bool = True,
) -> dict[str, Any]:
    """Write what a run has learnt into a new folder, and hold it against the run's own policy.

    Args:
        folder: The run's; nothing in it changes.
        out: A folder that is not there, or empty.
        form: onnx, or pt2 of torch.export.
        checkpoint: "last", "best" of the run's own evaluations, or the step of one that was kept.
        episodes: Of the evaluation whose scores are told.
        observations: On which the two are held against each other.
        allow: Packages that the run's config may name beside hsw's own.
        video: Record an episode too, where the environment draws itself and imageio is installed.

    Returns:
        What parity.json says.

    Raises:
        ConfigError: If an argument is wrong, a package is missing, or the policy cannot be exported.
        CorruptError: If the run cannot be read.
        HswError: If the exported policy acts otherwise; then nothing is left.
    """
    formats.refuse_missing(form)
    _refuse_place(folder, out)
    trained = load_trained(folder, checkpoint, allow)
    adapt(trained.policy)  # a graph is of the layers as they are written, in float32
    config = trained.config.copy()
    config.eval_episodes = max(episodes, config.eval_episodes)
    with only_trusted(config):
        env = build_env(config, training=False, normalize_obs=False)
    try:
        graph = ActingGraph(trained, env).eval()
        content, run = formats.write(graph, form)
        parity = {"format": form, **hold(trained, graph, env, run, observations)}
    finally:
        env.close()
    if not parity.pop("equal"):
        raise HswError(f"the exported policy acts otherwise than the run's own, beyond {CLOSE:g}: {json.dumps(parity)}")
    scores = {"step": trained.step, "episodes": episodes, **trained.evaluate(episodes, deterministic=True)}
    files = {
        formats.FILES[form]: content,
        "policy.json": _json(_interface(trained, graph, form)),
        "parity.json": _json({**parity, "versions": versions(("torch", "onnx", "onnxruntime")), "machine": machine()}),
        "results.json": _json(scores),
        "config.yaml": OmegaConf.to_yaml(OmegaConf.create(_config(trained))).encode(),
        "model.safetensors": save(_tensors(trained)),
    }
    _write(out, files, trained, scores, parity, video)
    return parity


def _refuse_place(folder: Path, out: Path) -> None:
    if out.resolve().is_relative_to(folder.resolve()):
        raise ConfigError(f"--out={out} is within the run's folder, which is left as it is; name another")
    if out.is_symlink() or (out.exists() and not out.is_dir()):
        raise ConfigError(f"--out={out} is no folder; name another")
    if out.exists() and any(out.iterdir()):
        raise ConfigError(f"--out={out} holds something already; name a folder that is empty or not there")


def _write(
    out: Path,
    files: dict[str, bytes],
    trained: TrainedPolicy,
    scores: dict[str, Any],
    parity: dict[str, Any],
    video: bool,
) -> None:
    """All files, or none."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        place = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    except OSError as error:
        raise ResourceError(f"cannot write beside {out}: {error.strerror or error}") from error
    try:
        for name, content in files.items():
            (place / name).write_bytes(content)
        recorded = video and _record(trained, place / "replay")
        (place / "README.md").write_text(card(trained, scores, parity, sorted(files), recorded))
        place.chmod(0o755)
        os.replace(place, out)
    except OSError as error:
        raise ResourceError(f"cannot write {out}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _record(trained: TrainedPolicy, stem: Path) -> bool:
    """Whether an episode could be recorded; what keeps it from that is told, and no reason not to export."""
    if find_spec("imageio") is None:
        log.warning("no video: it needs imageio; pip install 'hsw[video]'")
        return False
    from hsw.agent.video import Recorder

    try:
        recorder = Recorder()
        trained.evaluate(1, True, num_envs=1, render_mode="rgb_array", on_step=recorder)
        written = recorder.write(stem)
    except Exception as error:  # of the environment's drawing
        log.warning("no video: %s", words_of(error))
        return False
    os.replace(written, stem.with_suffix(".mp4"))
    return True


def _interface(trained: TrainedPolicy, graph: ActingGraph, form: str) -> dict[str, Any]:
    """What somebody has to know who runs the file without hsw."""
    env = trained.config.env
    wrappers = OmegaConf.to_container(env.get("wrappers") or OmegaConf.create([]), resolve=True)
    return {
        "hsw": hsw.__version__,
        "file": formats.FILES[form],
        "env": {
            "id": env.get("id"),
            "kwargs": redact_all(OmegaConf.to_container(env.get("kwargs") or OmegaConf.create())),
        },
        "inputs": [port.told for port in graph.inputs],
        "outputs": [port.told for port in graph.outputs],
        "frame_stack": env.get("frame_stack", 1),
        "frame_stack_axis": graph.frame_axis,
        "wrappers": redact_all(wrappers),
        "normalised_inside": bool(trained.statistics) or bool(trained.config.network.get("normalize_obs")),
        "action": "as the environment takes it: within its bounds, counted from its first one",
        "state": "of the first call the zeros of its shape; then what next_<name> was; start is true where an episode "
        "begins, and what was carried is forgotten there",
    }


def _config(trained: TrainedPolicy) -> Any:
    plain: Any = OmegaConf.to_container(trained.config, resolve=True)
    return redact_all({key: value for key, value in plain.items() if key not in ("allow", "resume")})


def _tensors(trained: TrainedPolicy) -> dict[str, Tensor]:
    named = {f"policy.{name}": value for name, value in trained.policy.state_dict().items()}
    for part, moments in trained.statistics.items():
        named |= {f"obs_statistics.{part}.{name}": moments[name] for name in ("mean", "var")}
    return {name: value.detach().cpu().contiguous().clone() for name, value in named.items()}


def _json(value: Any) -> bytes:
    return json.dumps(value, indent=1).encode() + b"\n"

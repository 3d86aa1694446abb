"""A Ray cluster (https://docs.ray.io): connect to one or start one, with this hsw on its nodes."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import shutil
import signal
import socket
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hsw
from hsw.config.place import conf_folder
from hsw.errors import ConfigError

log = logging.getLogger("hsw")
KEY = "hydra.launcher.address"


@contextlib.contextmanager
def connected(address: str, runtime_env: dict[str, Any]) -> Iterator[Any]:
    """Within the body there is a cluster. Yields the module ray.

    Args:
        address: auto, local, or <host>:<port>.
        runtime_env: Of what runs there.

    Raises:
        ConfigError: If there is no cluster at that address.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is reported home
    import ray

    signals = signal.SIGINT, signal.SIGTERM
    main = threading.current_thread() is threading.main_thread()
    handlers = {signum: signal.getsignal(signum) for signum in signals} if main else {}
    try:
        _connect(ray, os.environ.get("RAY_ADDRESS", "auto") if address == "auto" else address, runtime_env)
    except SystemExit:  # Ray's own handler, while it connects
        signal.signal(signal.SIGTERM, handlers[signal.SIGTERM])
        signal.raise_signal(signal.SIGTERM)
    try:
        for signum, handler in handlers.items():
            signal.signal(signum, handler)
        yield ray
    finally:
        ray.shutdown()


def _connect(ray: Any, address: str, runtime_env: dict[str, Any]) -> None:
    options: dict[str, Any] = {"logging_level": "ERROR", "log_to_driver": True}
    variables = {"RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1"}  # who asks for no GPU sees none
    runtime_env = {**runtime_env, "env_vars": {**variables, **runtime_env.get("env_vars", {})}}
    with tempfile.TemporaryDirectory(prefix="hsw-") as place:
        shipped = {**runtime_env, "py_modules": [*_package(Path(place)), *runtime_env.get("py_modules", ())]}
        if address == "auto":
            try:
                ray.init("auto", runtime_env=shipped, **options)
                return
            except ConnectionError:
                log.info("there is no Ray cluster here; one is started, and ends with this sweep")
                address = "local"
        if address == "local":  # which runs what is here
            sizes = {"include_dashboard": False, "object_store_memory": 10**8}
            ray.init("local", runtime_env=runtime_env, **sizes, **options)
            return
        _refuse_unreachable(address)
        try:
            ray.init(address, runtime_env=shipped, **options)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise ConfigError(f"{KEY}={address}: {str(error).partition(chr(10))[0]}") from error


def _refuse_unreachable(address: str) -> None:
    """Ray itself would try for a long time."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or "/" in host:
        raise ConfigError(f"{KEY}={address} is no address; it is auto, local, or <host>:<port> as `ray start` shows it")
    try:
        socket.create_connection((host, int(port)), timeout=5.0).close()
    except OSError as error:
        raise ConfigError(
            f"{KEY}={address}: no Ray cluster answers there ({error.strerror or error}); `ray start --head` starts "
            "one, and address=local takes this machine alone"
        ) from error


def _package(place: Path) -> list[str]:
    """hsw as a wheel has it, which is all of the program that is shipped."""
    root, ignore = Path(hsw.__file__).parent, shutil.ignore_patterns("__pycache__", "*.png", "report.md")
    shutil.copytree(root, place / "hsw", ignore=ignore)
    shutil.copytree(conf_folder(), place / "hsw" / "conf", ignore=ignore, dirs_exist_ok=True)
    plugins = importlib.util.find_spec("hydra_plugins.hsw_sweep")
    assert plugins is not None
    assert plugins.origin is not None
    (place / "hydra_plugins").mkdir()
    shutil.copy(plugins.origin, place / "hydra_plugins")
    return [str(place / "hsw"), str(place / "hydra_plugins")]


def alive(ray: Any) -> list[Any]:
    """The nodes of the cluster."""
    return [node for node in ray.nodes() if node["Alive"]]


def missing(ray: Any, needs: dict[str, float]) -> str:
    """What keeps a job from running, as part of a sentence.

    Args:
        needs: CPUs and GPUs of a job, as CPU and GPU.
    """
    nodes = alive(ray)
    wants = f"a job takes {needs['CPU']:g} CPUs and {needs['GPU']:g} GPUs of one node"
    sizes = [{kind: node["Resources"].get(kind, 0.0) for kind in needs} for node in nodes]
    if any(all(size[kind] >= count for kind, count in needs.items()) for size in sizes):
        free = {kind: ray.available_resources().get(kind, 0.0) for kind in needs}
        return f"{wants}, and of all {len(nodes)} {free['CPU']:g} and {free['GPU']:g} are free"
    largest = ", ".join(sorted({f"{size['CPU']:g} and {size['GPU']:g}" for size in sizes})) or "none"
    return (
        f"{wants}, and the {len(nodes)} nodes have {largest}; lower hydra.launcher.num_cpus or num_gpus, or let a "
        "larger node join the cluster"
    )

"""A connection to a Ray cluster, or one of this run's own, that leaves the process as it was."""

from __future__ import annotations

import atexit
import contextlib
import functools
import importlib
import importlib.util
import logging
import os
import signal
import socket
import sysconfig
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hsw import ending
from hsw.agent.actor import log
from hsw.errors import ConfigError, words_of
from hsw.run import watched

_ANSWER_SECONDS = 10.0
_LEAST_STORE = 100 * 2**20  # bytes
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM, signal.SIGUSR1, signal.SIGUSR2)
# Ray's environment variables: nothing is told to its makers; nothing is said about GPUs that actors do not use.
_ENVIRONMENT = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
_ABORT = "RAY_gcs_rpc_server_reconnect_timeout_s"


def import_ray() -> Any:
    """Ray, which is an extra.

    Raises:
        ConfigError: If it is not installed.
    """
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)  # which it reads as it is imported
    try:
        import ray
    except ImportError as error:
        raise ConfigError(f"pool=ray needs Ray ({error}); pip install 'hsw[ray]', or take pool=processes") from error
    return ray


class RayCluster:
    """A connection. Whoever has connected this process before keeps theirs, and it is used.

    Args:
        address: auto (RAY_ADDRESS, else what `ray start` has started here, else local), local, or host:port.
        key: The setting that this is, for errors.
        code: What workers of a cluster that is not this process's own get from here: Ray's py_modules and excludes.
        runtime_env: More of what its workers, or those of a local one, run in.
        log_to_driver: Whether what they print is seen here.
        abort_seconds: Without the cluster's head, after which Ray aborts this process; never a local one's.
        **sizes: Of a local one, which is of this process alone and ends with it: Ray's num_cpus, object_store_memory.

    Raises:
        ConfigError: If there is no cluster at the address, or it does not take this process.
    """

    def __init__(
        self,
        address: str,
        key: str,
        code: Mapping[str, Any],
        runtime_env: Mapping[str, Any] | None = None,
        *,
        log_to_driver: bool = False,
        abort_seconds: int = 60,
        **sizes: float,
    ) -> None:
        self.ray = ray = import_ray()
        self._owned, self.name = not ray.is_initialized(), "the Ray cluster"
        if not self._owned:
            return
        found, environment = _resolved(address, key), dict(runtime_env or {})
        options: dict[str, Any] = {"log_to_driver": log_to_driver, "configure_logging": False}
        if found is None:
            self.name = "a Ray cluster of this machine's own"
            store = max(_LEAST_STORE, int(sizes.pop("object_store_memory", 0)))
            options |= {"address": "local", "object_store_memory": store, "runtime_env": environment, **sizes}
            options |= {"include_dashboard": False, "_node_ip_address": "127.0.0.1"}  # nobody else's
        else:
            self.name = f"the Ray cluster at {found}"
            modules = [*code["py_modules"], *environment.get("py_modules", ())]
            options |= {"address": found, "runtime_env": {**code, **environment, "py_modules": modules}}
            # Not with a local cluster, whose processes would inherit it and are to end with this one.
            os.environ.setdefault(_ABORT, str(abort_seconds))
        if not log_to_driver:  # what Ray prints of its workers' ends, the pool says in a sentence
            ray._private.worker._worker_logs_enabled = False
        logging.getLogger("ray").setLevel(logging.CRITICAL)
        try:
            with _own_signals(ray), _other_groups() if found is None else contextlib.nullcontext():
                ray.init(**options)
            beside = watched.current()
            if found is None and beside:
                beside.tell(groups={"leaders": _processes(ray), "session": os.getsid(0)})
        except Exception as error:  # its errors have no common base
            kind = type(error).__name__
            raise ConfigError(f"{key}={address}: {self.name} cannot be used: {kind}: {words_of(error)}") from error

    def shortage(self) -> str:
        """What the cluster has, and has to give, as part of a sentence; empty where its head does not answer."""
        ray = self.ray
        found = within(_ANSWER_SECONDS, lambda: (ray.nodes(), ray.cluster_resources(), ray.available_resources()))
        if found is None:
            return ""
        nodes, (total, free) = sum(node["Alive"] for node in found[0]), (part.get("CPU", 0) for part in found[1:])
        return f"the cluster has {nodes} node{'s' * (nodes != 1)} with {total:g} CPUs, {free:g} of them free"

    def close(self) -> None:
        """Disconnect; a local cluster ends. Where its head is gone, Ray would wait for it, also as the process ends."""
        if self._owned:
            with _own_signals(self.ray):
                if not within(_ANSWER_SECONDS, lambda: (self.ray.shutdown(),)):
                    atexit.unregister(self.ray.shutdown)


def _resolved(address: str, key: str) -> str | None:
    """host:port of a cluster that answers; None if there is to be a local one."""
    services: Any = importlib.import_module("ray._private.services")
    if "://" in address:
        raise ConfigError(
            f"{key}={address} is Ray Client's; give host:port of the cluster's head, as `ray start` prints it"
        )
    try:
        found: str | None = services.canonicalize_bootstrap_address(None if address == "auto" else address)
        if found is None:
            return None
        host, _, port = found.rpartition(":")
        with socket.create_connection((host.strip("[]"), int(port)), _ANSWER_SECONDS):
            pass
    except (ValueError, OSError) as error:
        if address == "auto" and "RAY_ADDRESS" not in os.environ:
            log.info("the Ray cluster that was started here last does not answer; another is started")
            return None
        named = "RAY_ADDRESS" if address == "auto" else f"{key}={address}"
        raise ConfigError(
            f"{named}: no Ray cluster answers there ({error}); start one with `ray start --head` and give its address, "
            f"or take {key}=local"
        ) from error
    if not _is_ray(found):
        raise ConfigError(
            f"{key}={address}: what answers there is no Ray cluster that this process may join; give the port "
            "that `ray start` prints, 6379 as a rule, and the cluster's token (`ray get-auth-token`)"
        )
    return found


def _is_ray(address: str) -> bool:
    """Whether a cluster's head answers; Ray itself would ask for minutes."""
    raylet: Any = importlib.import_module("ray._raylet")

    def ask() -> bool:
        raylet.GcsClient(address=address).internal_kv_keys(b"", namespace=None, timeout=_ANSWER_SECONDS)
        return True

    return bool(within(2 * _ANSWER_SECONDS, ask))


def within(seconds: float, call: Callable[[], Any]) -> Any:
    """What a call of Ray's returns, if it does so in time; else None. It may wait for ever."""
    results: list[Any] = []

    def run() -> None:
        with contextlib.suppress(Exception):
            results.append(call())

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        ending.strays.append(thread)
    return results[0] if results else None


def shipped(packages: Sequence[str]) -> dict[str, Any]:
    """A runtime environment with the code of hsw and of packages that are not installed, and with nothing else.

    Raises:
        ConfigError: If there is no such package.
    """
    installed = tuple(str(Path(sysconfig.get_path(name))) + os.sep for name in ("purelib", "platlib"))
    folders: list[str] = []
    for name in dict.fromkeys(("hsw", *packages)):
        spec = importlib.util.find_spec(name.partition(".")[0])
        if spec is None or spec.origin is None:
            raise ConfigError(f"there is no package {name} to ship to Ray's workers; see pool.packages")
        path = Path(spec.origin).resolve()
        if name == "hsw" or not str(path).startswith(installed):
            folders.append(str(path.parent if path.name == "__init__.py" else path))
    return {"py_modules": folders, "excludes": ["__pycache__", "*.pyc"]}


@contextlib.contextmanager
def _own_signals(ray: Any) -> Iterator[None]:
    """The context in which Ray comes and goes: it takes SIGTERM for itself, and in C as well."""
    utils, handlers = ray._private.utils, {}
    if threading.current_thread() is threading.main_thread():
        handlers = {number: signal.getsignal(number) for number in _SIGNALS}
    set_handler = utils.set_sigterm_handler
    utils.set_sigterm_handler = lambda handler: None
    try:
        yield
    finally:
        utils.set_sigterm_handler = set_handler
        for number, handler in handlers.items():
            if handler is not None:  # it was Python's
                signal.signal(number, handler)


def _processes(ray: Any) -> list[int]:
    """The ids of a local cluster's processes, and of the groups that they lead."""
    started = ray._private.worker._global_node.all_processes
    return [one.process.pid for kind in started.values() for one in kind]


@contextlib.contextmanager
def _other_groups() -> Iterator[None]:
    """The context in which a local cluster's processes are started, each in a group of its own.

    A signal for this process's group, such as Ctrl-C's, would end them, and with them this process before it has saved.
    They end with this process, however it ends.
    """
    services: Any = importlib.import_module("ray._private.services")
    popen = services.ConsolePopen
    services.ConsolePopen = functools.partial(popen, process_group=0)
    try:
        yield
    finally:
        services.ConsolePopen = popen

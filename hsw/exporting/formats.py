"""A graph as a file: ONNX, or torch.export's."""

from __future__ import annotations

import importlib.util
import io
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch

from hsw.errors import ConfigError, words_of
from hsw.exporting.graph import ActingGraph

NEEDED = {"onnx": ("onnx", "onnxscript", "onnxruntime"), "pt2": ()}
FILES = {"onnx": "policy.onnx", "pt2": "policy.pt2"}
OPSET = 20

# What a format gives to hold against torch: inputs by name to outputs by name.
Runner = Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]


def refuse_missing(form: str) -> None:
    """Refuse a format before anything is done whose packages are not installed."""
    missing = [name for name in NEEDED[form] if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(f"--format={form} needs {', '.join(missing)}; pip install 'hsw[export]'")


def write(graph: ActingGraph, form: str) -> tuple[bytes, Runner]:
    """A graph in a format, and what runs those very bytes.

    Raises:
        ConfigError: If torch cannot trace the policy.
    """
    examples = tuple(port.example for port in graph.inputs)
    batch = torch.export.Dim("batch")
    shapes = tuple({port.batch: batch} for port in graph.inputs)
    try:
        with _quiet(), torch.no_grad():
            program = torch.export.export(graph, examples, dynamic_shapes={"inputs": shapes}, strict=False)
            return (_onnx if form == "onnx" else _pt2)(graph, program)
    except Exception as error:  # whatever tracing meets
        kind = type(error).__name__
        raise ConfigError(f"this policy cannot be exported as {form}: {kind}: {words_of(error)}") from error


def _onnx(graph: ActingGraph, program: torch.export.ExportedProgram) -> tuple[bytes, Runner]:
    model = torch.onnx.export(
        program,
        dynamo=True,
        input_names=[port.name for port in graph.inputs],
        output_names=[port.name for port in graph.outputs],
        opset_version=OPSET,
        verbose=False,
    )
    assert model is not None
    content = model.model_proto.SerializeToString()
    return content, onnx_runner(content)


def onnx_runner(content: bytes) -> Runner:
    """What runs an ONNX model, in one thread."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    taken = {port.name for port in session.get_inputs()}
    names = [port.name for port in session.get_outputs()]

    def run(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        values = session.run(None, {name: value for name, value in inputs.items() if name in taken})
        return dict(zip(names, values, strict=True))

    return run


def _pt2(graph: ActingGraph, program: torch.export.ExportedProgram) -> tuple[bytes, Runner]:
    file = io.BytesIO()
    torch.export.save(program, file)
    module = program.module()

    def run(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        with torch.no_grad():
            values = module(*(torch.from_numpy(inputs[port.name]) for port in graph.inputs))
        return {port.name: value.numpy() for port, value in zip(graph.outputs, values, strict=True)}

    return file.getvalue(), run


@contextmanager
def _quiet() -> Iterator[None]:
    """torch's exporters tell much that is of no use to whoever exports a policy."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir", "torch.export")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)

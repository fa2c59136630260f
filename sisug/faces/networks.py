"""The networks that read faces: where they come from, and what runs them (every reader of faces)."""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from sisug.common.wheels import wheel_file, wheel_member
from sisug.errors import CheckpointError, ConfigError

PACKAGE, VERSION = "mediapipe", "0.10.21"  # wheels from 0.10.30 on bundle no models
TARGET = "cp311-cp311-manylinux_2_28_x86_64"
"""Which of its wheels is asked for: all hold the same models, and none of their code is used."""

TERMS = "Apache-2.0"
SIZE_MB = 35.6

MODELS = {
    "mediapipe/modules/face_detection/face_detection_short_range.tflite": (
        "bbff11cebd1eb27a1e004cae0b0e63ec8c551cbf34a4451148b4908b8db3eca8"
    ),
    "mediapipe/modules/face_landmark/face_landmark.tflite": (
        "1055cb9d4a9ca8b8c688902a3a5194311138ba256bcc94e336d8373a5f30c814"
    ),
}
"""Models inside the wheel, with their SHA-256: detection of faces (BlazeFace), and 468 landmarks (face mesh)."""

Run = Callable[[np.ndarray], list[np.ndarray]]
"""One input (1, height, width, 3) to the outputs, each flattened, by their order in the model."""


def load_networks() -> tuple[Run, Run]:
    """Detection and landmarks, ready to run on the CPU; the first call fetches their wheel.

    Returns:
        The two networks.

    Raises:
        CheckpointError: the wheel cannot be fetched, or holds other models.
        ConfigError: no package that runs them is installed.
    """
    start = _runtime()
    # Any wheel of that version will do: the models' own digests are checked.
    wheel = wheel_file(PACKAGE, VERSION, (), terms=TERMS, size_mb=SIZE_MB, target=TARGET)
    detection, landmarks = (_started(start, wheel_member(wheel, name, digest)) for name, digest in MODELS.items())
    return detection, landmarks


def fingerprint() -> str:
    """What identifies the networks in records: the digests of both models."""
    return "".join(digest[:32] for digest in MODELS.values())


def _runtime() -> Callable[[bytes], Run]:
    for package, start in (("openvino", _openvino), ("ai_edge_litert", _litert)):
        if importlib.util.find_spec(package) is not None:
            return start
    raise ConfigError(
        "faces cannot be read",
        "neither openvino nor ai-edge-litert is installed, one of which runs the networks",
        'install them with pip install "sisug[faces-eval]", from a checkout pip install -e ".[faces-eval]"',
    )


def _started(start: Callable[[bytes], Run], model: bytes) -> Run:
    try:
        return start(model)
    except Exception as error:  # both packages raise RuntimeError and more
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise CheckpointError(
            "a network that reads faces cannot be loaded",
            reason,
            'install the versions that were tested: pip install -c constraints.txt "sisug[faces-eval]"',
        ) from error


def _openvino(model: bytes) -> Run:
    import openvino

    core = openvino.Core()
    # float32, where some CPUs would take bfloat16: points must not move with the machine.
    options = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
    with tempfile.TemporaryDirectory() as folder:  # it reads this kind of model from files only
        path = Path(folder) / "model.tflite"
        path.write_bytes(model)
        compiled: Any = core.compile_model(core.read_model(path), "CPU", options)
    return lambda values: [np.array(compiled([values])[port]).reshape(-1) for port in compiled.outputs]


def _litert(model: bytes) -> Run:
    from ai_edge_litert.interpreter import Interpreter

    interpreter: Any = Interpreter(model_content=model)
    interpreter.allocate_tensors()
    entry = interpreter.get_input_details()[0]["index"]
    exits = [output["index"] for output in interpreter.get_output_details()]

    def run(values: np.ndarray) -> list[np.ndarray]:
        interpreter.set_tensor(entry, values)
        interpreter.invoke()
        return [np.array(interpreter.get_tensor(index)).reshape(-1) for index in exits]

    return run

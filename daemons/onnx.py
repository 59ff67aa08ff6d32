"""ONNX Runtime sessions as every engine of the box wants them: few threads that sleep when idle, nobody called home."""

from pathlib import Path

import onnxruntime as ort

ort.disable_telemetry_events()


def session(path: Path, threads: int = 1) -> ort.InferenceSession:
    """Open the model at `path` on the CPU. `run` releases the GIL. Raises what onnxruntime raises on a bad file."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # A spinning thread would take a core from the other workers of the box between two runs.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 4  # a failure is raised; it need not be printed too
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

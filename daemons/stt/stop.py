"""How a model's run is told to stop."""

import threading

import onnxruntime


class Stop(threading.Event):
    """Set when nobody waits for the result any more; a run with `options` ends then at its next operator, by Fail."""

    def __init__(self) -> None:
        super().__init__()
        self.options = onnxruntime.RunOptions()

    def set(self) -> None:
        super().set()
        self.options.terminate = True

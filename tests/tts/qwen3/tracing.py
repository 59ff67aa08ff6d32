"""A driver of graphs for a CPU: like CUDA's, it records what is done once, and does just that again."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from torch import Tensor  # noqa: E402
from torch.fx.experimental.proxy_tensor import make_fx  # noqa: E402

from daemons.tts.engines.qwen3.graphs import Fetched, Function, Replay  # noqa: E402


class TracingDriver:
    """`torch.fx` records the operations; a branch on what a tensor holds cannot be recorded, as on a GPU."""

    def __init__(self) -> None:
        self.captures = 0

    def capture(self, function: Function, inputs: Sequence[Tensor]) -> tuple[Replay, tuple[Tensor, ...]]:
        self.captures += 1
        recorded = make_fx(lambda *given: function(*given))(*inputs)  # noqa: PLW0108 - it would count a method's self
        outputs = tuple(output.clone() for output in recorded(*inputs))

        def replay() -> None:
            for place, output in zip(outputs, recorded(*inputs), strict=True):
                place.copy_(output)

        return replay, outputs

    @contextmanager
    def stream(self) -> Iterator[object]:
        yield self

    def fetch(self, tensor: Tensor) -> Fetched:
        """As a GPU, which brings what the tensor holds now, whatever is written into it later."""
        held = tensor.clone()
        return lambda: held

"""Steps on tensors of fixed shape, replayed from CUDA graphs.

A graph is captured once for each shape, when the engine starts, and never later: a capture takes a second and disturbs
whatever else runs on the card. What was not captured runs eagerly, and is counted with the reason.
"""

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from enum import StrEnum
from typing import Protocol

import torch
from torch import Tensor

log = logging.getLogger(__name__)

WARM_UPS = 3  # before a capture: libraries allocate and choose their kernels in the first runs

Function = Callable[..., tuple[Tensor, ...]]
Replay = Callable[[], None]
Fetched = Callable[[], Tensor]


class Miss(StrEnum):
    """Why a step ran eagerly."""

    NO_DRIVER = "no driver"  # this device has no graphs
    CAPTURE = "capture failed"
    SHAPE = "shape"
    DEVICE = "device"
    POSITION = "position"  # the caller says so: the step lies beyond what the captured one may reach


class Driver(Protocol):
    """How a device records what a function does and does it again."""

    def capture(self, function: Function, inputs: Sequence[Tensor]) -> tuple[Replay, tuple[Tensor, ...]]:
        """Record `function(*inputs)`: (what does it again, on what `inputs` hold then; where its outputs lie).

        Raises RuntimeError when that cannot be done.
        """

    def stream(self) -> AbstractContextManager[object]:
        """Work given inside goes, in order, on a stream of this driver's own."""

    def fetch(self, tensor: Tensor) -> Fetched:
        """Begin to bring `tensor` to the CPU; what is returned waits until it is there."""


class CudaDriver:
    """CUDA graphs, on a stream of their own; all captures of a driver share one pool of memory."""

    def __init__(self, device: torch.device) -> None:
        self._stream = torch.cuda.Stream(device)
        self._pool = torch.cuda.graph_pool_handle()

    def capture(self, function: Function, inputs: Sequence[Tensor]) -> tuple[Replay, tuple[Tensor, ...]]:
        self._stream.wait_stream(torch.cuda.current_stream(self._stream.device))
        with torch.cuda.stream(self._stream):
            for _ in range(WARM_UPS):
                function(*inputs)
        self._stream.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool, stream=self._stream):
            outputs = function(*inputs)
        return graph.replay, outputs

    @contextmanager
    def stream(self) -> Iterator[object]:
        with torch.cuda.stream(self._stream):
            yield self._stream

    def fetch(self, tensor: Tensor) -> Fetched:
        place = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
        with torch.cuda.stream(self._stream):
            place.copy_(tensor, non_blocking=True)
        arrived = self._stream.record_event()

        def wait() -> Tensor:
            arrived.synchronize()
            return place

        return wait


class _Captured:
    """`inputs` and `outputs` lie at fixed addresses: a replay reads the first and writes the second."""

    def __init__(self, driver: Driver, function: Function, examples: Sequence[Tensor]) -> None:
        self.inputs = tuple(example.clone() for example in examples)
        self._replay, self._outputs = driver.capture(function, self.inputs)

    def __call__(self, given: Sequence[Tensor]) -> tuple[Tensor, ...]:
        for place, value in zip(self.inputs, given, strict=True):
            place.copy_(value)
        self._replay()
        return self._outputs


class Graphed:
    """`function`, which may change tensors that lie where they lie (a cache, a state), with or without graphs.

    `eagerly` does the same where there is no graph, perhaps in a larger space. What a call returns is overwritten by
    the next call of the same shape.
    """

    def __init__(
        self, name: str, function: Function, driver: Driver | None, *, eagerly: Function | None = None
    ) -> None:
        self.name = name
        self.replays = 0
        self.misses: Counter[Miss] = Counter()
        self._function = function
        self._eagerly = eagerly or function
        self._driver = driver
        self._captured: dict[tuple[torch.Size, ...], _Captured] = {}
        self._failed: set[tuple[torch.Size, ...]] = set()

    def capture(self, *examples: Tensor) -> None:
        """Record a call with tensors of these shapes, dtypes and device. What the function changes is changed by it."""
        if self._driver is None:
            return
        shapes = _shapes(examples)
        try:
            self._captured[shapes] = _Captured(self._driver, self._function, examples)
        except RuntimeError as error:
            self._failed.add(shapes)
            log.warning("%s runs without a graph for %s: %s", self.name, shapes, error)

    def __call__(self, *inputs: Tensor, within: bool = True) -> tuple[Tensor, ...]:
        """`within`: the captured step may be used where this one stands (its position fits the fixed shapes)."""
        if (miss := self._miss(inputs, within)) is not None:
            self.misses[miss] += 1
            return self._eagerly(*inputs)
        self.replays += 1
        return self._captured[_shapes(inputs)](inputs)

    def _miss(self, inputs: Sequence[Tensor], within: bool) -> Miss | None:
        shapes = _shapes(inputs)
        if self._driver is None:
            return Miss.NO_DRIVER
        if shapes in self._failed:
            return Miss.CAPTURE
        if shapes not in self._captured:
            return Miss.SHAPE
        places = self._captured[shapes].inputs
        if any(place.device != given.device for place, given in zip(places, inputs, strict=True)):
            return Miss.DEVICE
        return None if within else Miss.POSITION


def _shapes(tensors: Sequence[Tensor]) -> tuple[torch.Size, ...]:
    return tuple(tensor.shape for tensor in tensors)

"""The codec's decoder, frame by frame and exact: every partition of a stream gives the samples of the whole."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from daemons.tts.engines.qwen3.codec.network import Decoder
from daemons.tts.engines.qwen3.codec.streaming import Carrying, Step


@dataclass(frozen=True, slots=True, eq=False)
class State:
    """What a batch of streams carries from step to step. It never grows, and its tensors never move.

    Zeros are a stream that has not begun.
    """

    memory: Tensor
    """Float [batch, carried]: for each layer in turn what it carries, flat (`IncrementalDecoder.carried`)."""
    frames: Tensor
    """int64 [batch]: how many each stream has behind it."""

    @property
    def batch(self) -> int:
        return len(self.frames)

    @property
    def nbytes(self) -> int:
        return int(self.memory.nbytes + self.frames.nbytes)

    def take(self, row: int) -> "State":
        """A copy of what the stream in `row` carries, as a batch of one."""
        with torch.inference_mode(False):
            return State(self.memory[row : row + 1].clone(), self.frames[row : row + 1].clone())

    def put(self, row: int, one: "State") -> None:
        """Let the stream of `one`, a batch of one, go on in `row`."""
        self.memory[row] = one.memory[0]
        self.frames[row] = one.frames[0]

    def clone(self) -> "State":
        with torch.inference_mode(False):
            return State(self.memory.clone(), self.frames.clone())


class IncrementalDecoder:
    """Holds no stream itself; any number of states may go through it in turn."""

    def __init__(self, network: Decoder) -> None:
        self.config = network.config
        self.network = network
        layers = [layer for layer in network.modules() if isinstance(layer, Carrying)]
        self._sizes = {layer: size for layer in layers if (size := math.prod(layer.carried))}

    def begin(self, batch: int) -> State:
        """For `batch` streams, none begun, where the network's weights are."""
        like = next(self.network.parameters())
        with torch.inference_mode(False):  # what is made in that mode could not be changed out of it
            return State(
                torch.zeros(batch, sum(self._sizes.values()), dtype=like.dtype, device=like.device),
                torch.zeros(batch, dtype=torch.int64, device=like.device),
            )

    def decode(self, codes: Tensor) -> Tensor:
        """Whole streams: `codes`, int64 [batch, num_quantizers, n], → float32 [batch, n · frame_samples]."""
        return self.step(codes, self.begin(len(codes)))

    def carried(self, state: State) -> dict[Carrying, Tensor]:
        """Of each layer, [batch, *layer.carried]: views of `state.memory`."""
        slices = state.memory.split(list(self._sizes.values()), dim=1)
        return {layer: part.unflatten(1, layer.carried) for layer, part in zip(self._sizes, slices, strict=True)}

    def step(self, codes: Tensor, state: State, active: Tensor | None = None) -> Tensor:
        """The next frames of each stream: float32 [batch, n · frame_samples] in ±1.

        `codes`: int64 [batch, num_quantizers, n ≥ 1], each below `codebook_size`. `active`, bool [batch]: the other
        rows stay as they are, and their audio means nothing. Nothing here depends on a value that a tensor holds, so
        a step can be captured in a CUDA graph. Raises ValueError for codes of another shape. Whatever is raised, the
        state is as it was.
        """
        expected = (state.batch, self.config.num_quantizers)
        if codes.ndim != 3 or codes.shape[:2] != expected or not codes.shape[2]:
            raise ValueError(f"codes of shape {tuple(codes.shape)} are no frames of shape {(*expected, '1 or more')}")
        step = Step(self.carried(state))
        audio = self.network(codes, state.frames, step)
        memory = torch.cat([step.future[layer].flatten(1) for layer in self._sizes], dim=1)
        frames = state.frames + codes.shape[2]
        if active is not None:
            memory = torch.where(active[:, None], memory, state.memory)
            frames = torch.where(active, frames, state.frames)
        state.memory.copy_(memory)
        state.frames.copy_(frames)
        return audio

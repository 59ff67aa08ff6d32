"""Keys and values that a transformer has already computed, of several rows (streams) at once."""

from typing import Protocol

import torch
from torch import Tensor

from daemons.tts.engines.qwen3.config import TransformerConfig


class Cache(Protocol):
    def extend(self, layer: int, keys: Tensor, values: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Add [rows, heads, new, head_size] at `positions`, int64 [rows, new].

        What the layer holds then, twice [rows, heads, held, head_size].
        """

    def visible(self, positions: Tensor) -> Tensor:
        """Which of the held positions each of `positions` (about to be added) may see: bool [rows, new, held]."""


class StaticCache:
    """Of one shape at one address for good, as CUDA graphs need it; each row is at a position of its own.

    Nothing is ever cleared: what lies beyond a row's position is not seen, and overwritten before it could be. So a row
    is begun anew by writing at position 0, and a prompt may be padded on its right. A position beyond the room is
    the caller's fault, and checked nowhere.
    """

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        """Of this memory, each [layers, rows, heads, room, head_size], without a NaN in it."""
        self._keys, self._values = keys, values
        self._places = torch.arange(keys.shape[3], device=keys.device)

    @classmethod
    def empty(
        cls,
        config: TransformerConfig,
        rows: int,
        room: int,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> "StaticCache":
        """`room`: of positions in each row."""
        shape = (config.layers, rows, config.key_value_heads, room, config.head_size)
        # Zeros, not whatever memory holds: a NaN would reach the sum even though its weight is 0.
        return cls(torch.zeros(shape, device=device, dtype=dtype), torch.zeros(shape, device=device, dtype=dtype))

    @property
    def room(self) -> int:
        return len(self._places)

    def row(self, row: int) -> "StaticCache":
        """That row alone, of the same memory: a prompt is read into it while its neighbours rest."""
        return StaticCache(self._keys[:, row : row + 1], self._values[:, row : row + 1])

    def first(self, room: int) -> "StaticCache":
        """The first positions of all rows, of the same memory: steps that stay within them compute less."""
        return StaticCache(self._keys[:, :, :, :room], self._values[:, :, :, :room])

    def copy_from(self, other: "StaticCache") -> None:
        """All that `other` holds; but for the room, which may be larger here, its shape must be the same."""
        self._keys[:, :, :, : other.room].copy_(other._keys)
        self._values[:, :, :, : other.room].copy_(other._values)

    def extend(self, layer: int, keys: Tensor, values: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        held_keys, held_values = self._keys[layer], self._values[layer]
        places = positions[:, None, :, None].expand_as(keys)
        held_keys.scatter_(2, places, keys)
        held_values.scatter_(2, places, values)
        return held_keys, held_values

    def visible(self, positions: Tensor) -> Tensor:
        return self._places <= positions[..., None]


class DynamicCache:
    """Grows by what is added. All rows are at the same position."""

    def __init__(self) -> None:
        self._layers: list[tuple[Tensor, Tensor]] = []

    def extend(self, layer: int, keys: Tensor, values: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        if layer == len(self._layers):
            self._layers.append((keys, values))
        else:
            held_keys, held_values = self._layers[layer]
            self._layers[layer] = torch.cat((held_keys, keys), 2), torch.cat((held_values, values), 2)
        return self._layers[layer]

    def visible(self, positions: Tensor) -> Tensor:
        held = self._layers[0][0].shape[2] if self._layers else 0
        return torch.arange(held + positions.shape[1], device=positions.device) <= positions[..., None]

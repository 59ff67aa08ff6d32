"""Tensors of published checkpoints, and how they get into a network whose parameters bear their names."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from daemons.errors import ConfigurationError

LISTED = 5  # of what is wrong with a checkpoint's names and shapes, at most so much is told


def load(network: nn.Module, folder: Path, *, prefix: str, without: tuple[str, ...]) -> None:
    """Fill `network` from `model.safetensors`, or from the files that `model.safetensors.index.json` names.

    Names that begin like one in `without` are left out. Raises ConfigurationError when a file is missing or broken, or
    its weights are not those of `network`.
    """
    weights = {}
    for file in _files(folder):
        try:
            with safe_open(file, framework="pt") as tensors:
                names = [name for name in tensors.keys() if not name.startswith(without)]  # noqa: SIM118 - no mapping
                weights.update({name: tensors.get_tensor(name) for name in names})
        except (OSError, SafetensorError) as error:
            raise ConfigurationError(f"{file} cannot be read: {error}") from error
    try:
        fill(network, weights, prefix)
    except ConfigurationError as error:
        raise ConfigurationError(f"{folder}: {error}") from error


def fill(network: nn.Module, weights: Mapping[str, Tensor], prefix: str) -> None:
    """Give each parameter of `network` the weight that is named `prefix` and its name, rounded to its own dtype.

    Raises ConfigurationError unless `weights` are just these, in their shapes.
    """
    wanted = {prefix + name: tuple(parameter.shape) for name, parameter in network.named_parameters()}
    found = {name: tuple(weight.shape) for name, weight in weights.items()}
    faults = [
        *(f"{name} is missing" for name in sorted(wanted.keys() - found.keys())),
        *(f"{name} is superfluous" for name in sorted(found.keys() - wanted.keys())),
        *(
            f"{name} is {found[name]} where {shape} is wanted"
            for name, shape in sorted(wanted.items())
            if name in found and found[name] != shape
        ),
    ]
    if faults:
        more = f", and {len(faults) - LISTED} more" if len(faults) > LISTED else ""
        raise ConfigurationError(
            f"not the weights of this {type(network).__name__.lower()}: {', '.join(faults[:LISTED])}{more}"
        )
    network.load_state_dict({name.removeprefix(prefix): weight for name, weight in weights.items()})


def _files(folder: Path) -> Iterator[Path]:
    single, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if single.exists():
        yield single
        return
    try:
        shards = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise ConfigurationError(f"{folder} holds neither {single.name} nor a {index.name} that can be read") from error
    for shard in sorted(shards):
        yield folder / shard

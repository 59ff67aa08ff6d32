"""Every partition of a stream against one forward pass of the published decoder."""

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import cycle
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from torch import Tensor  # noqa: E402
from torch.fx.experimental.proxy_tensor import make_fx  # noqa: E402

from daemons.tts.engines.qwen3.codec.config import CodecConfig  # noqa: E402
from daemons.tts.engines.qwen3.codec.incremental import IncrementalDecoder, State  # noqa: E402
from daemons.tts.engines.qwen3.codec.network import Decoder  # noqa: E402
from daemons.tts.engines.qwen3.codec.streaming import Carrying, CausalConv, CausalTransposedConv  # noqa: E402
from daemons.tts.engines.qwen3.codec.weights import build  # noqa: E402
from tests.tts.qwen3.codec.streams import TINY, assert_exact, published, random_codes  # noqa: E402

FRAMES = 3 * TINY.sliding_window + 14
BEGUN = 80  # frames: more than a window, so that every carried position means something
SAMPLES = TINY.frame_samples

with torch.device("meta"):
    LAYERS = {name: layer for name, layer in Decoder(TINY).named_modules() if isinstance(layer, Carrying)}
CARRYING = [name for name, layer in LAYERS.items() if math.prod(layer.carried)]
ATTENTION = [name for name in CARRYING if name.endswith("self_attn")]
OVERLAPS = [name for name in CARRYING if isinstance(LAYERS[name], CausalTransposedConv)]
HISTORIES = [name for name in CARRYING if isinstance(LAYERS[name], CausalConv)]


def randomly(seed: int) -> list[int]:
    sizes = random.Random(seed)
    return [sizes.choice((1, 1, 2, 3, 5, 12, 30)) for _ in range(FRAMES)]


PARTITIONS: dict[str, Sequence[int]] = {
    "single frames": [1],
    "pairs": [2],
    "ramp": [1, 2, 4, 8, 12],
    "packets of a window": [TINY.sliding_window],
    "longer than a window": [100],
    "one frame, then all": [1, FRAMES],
    "at once": [FRAMES],
    **{f"random {seed}": randomly(seed) for seed in range(2)},
}


def packets(codes: Tensor, sizes: Sequence[int]) -> list[Tensor]:
    """`codes` [batch, 16, n] cut into packets of these sizes, again and again."""
    cut: list[Tensor] = []
    at = 0
    for size in cycle(sizes):
        if at >= codes.shape[2]:
            return cut
        cut.append(codes[..., at : at + size])
        at += size
    raise ValueError("no sizes")


def streamed(decoder: IncrementalDecoder, parts: Sequence[Tensor], state: State) -> Tensor:
    return torch.cat([decoder.step(part, state) for part in parts], dim=1)


@pytest.fixture(scope="module")
def codes() -> Tensor:
    return random_codes(1, FRAMES, seed=1)


@pytest.fixture(scope="module")
def expected(weights: dict[str, Tensor], codes: Tensor) -> Tensor:
    """float32 [1, samples]: what the published decoder makes of the whole stream."""
    with torch.inference_mode():
        audio: Tensor = published(TINY, weights)(codes)[:, 0]
    assert audio.shape == (1, FRAMES * 1920)
    assert audio.std() > 0.1
    assert (audio.abs() == 1).float().mean() < 1e-3, "the clamp would hide what goes wrong"
    return audio


@pytest.fixture(scope="module")
def begun(decoder: IncrementalDecoder, codes: Tensor) -> State:
    state = decoder.begin(1)
    decoder.step(codes[..., :BEGUN], state)
    return state


@pytest.fixture
def check(decoder: IncrementalDecoder, codes: Tensor, expected: Tensor, begun: State) -> Callable[..., None]:
    """Is what follows the first `BEGUN` frames exact, when their state has been spoiled so?"""

    def check(spoil: Callable[[State], object] = lambda _: None, decoder: IncrementalDecoder = decoder) -> None:
        state = begun.clone()
        spoil(state)
        audio = streamed(decoder, codes[..., BEGUN : BEGUN + 6].split(2, dim=2), state)
        assert_exact(audio, expected[:, BEGUN * SAMPLES : (BEGUN + 6) * SAMPLES])

    return check


def carried(decoder: IncrementalDecoder, state: State, name: str) -> Tensor:
    return decoder.carried(state)[decoder.network.get_submodule(name)]


@pytest.mark.parametrize("name", PARTITIONS)
def test_every_partition_gives_the_samples_of_the_whole(
    name: str, decoder: IncrementalDecoder, codes: Tensor, expected: Tensor
) -> None:
    parts = packets(codes, PARTITIONS[name])
    assert_exact(streamed(decoder, parts, decoder.begin(1)), expected)


def test_a_stream_that_ends_within_its_first_window_is_exact(
    decoder: IncrementalDecoder, codes: Tensor, expected: Tensor
) -> None:
    audio = streamed(decoder, codes[..., :5].split(1, dim=2), decoder.begin(1))
    assert_exact(audio, expected[:, : 5 * SAMPLES])


def test_whole_streams_are_decoded_at_once(decoder: IncrementalDecoder, codes: Tensor, expected: Tensor) -> None:
    assert_exact(decoder.decode(codes), expected)


def test_the_check_passes_when_nothing_is_spoiled(check: Callable[..., None]) -> None:
    check()


@pytest.mark.parametrize("name", CARRYING)
def test_what_any_layer_forgets_is_heard(name: str, decoder: IncrementalDecoder, check: Callable[..., None]) -> None:
    with pytest.raises(AssertionError, match="off by"):
        check(lambda state: carried(decoder, state, name).zero_())


@pytest.mark.parametrize("name", HISTORIES)
@pytest.mark.parametrize("position", [0, -1])
def test_a_conv_needs_the_oldest_and_the_newest_that_it_carries(
    name: str, position: int, decoder: IncrementalDecoder, check: Callable[..., None]
) -> None:
    with pytest.raises(AssertionError, match="off by"):
        check(lambda state: carried(decoder, state, name)[..., position].zero_())


@pytest.mark.parametrize("name", ATTENTION)
@pytest.mark.parametrize("which", [0, 1], ids=["keys", "values"])
def test_attention_needs_keys_and_values_down_to_the_oldest(
    name: str, which: int, decoder: IncrementalDecoder, check: Callable[..., None]
) -> None:
    def oldest(state: State) -> Tensor:
        return carried(decoder, state, name)[:, which, :, 0]

    def all_late(state: State) -> None:
        held = carried(decoder, state, name)[:, which]
        held.copy_(held.roll(1, dims=2))

    for spoil in (lambda state: oldest(state).zero_(), all_late):
        with pytest.raises(AssertionError, match="off by"):
            check(spoil)


@pytest.mark.parametrize("name", OVERLAPS)
def test_a_bias_in_an_overlap_counts_twice(name: str, decoder: IncrementalDecoder, check: Callable[..., None]) -> None:
    bias = decoder.network.get_submodule(name).conv.bias

    def spoil(state: State) -> None:
        carried(decoder, state, name).add_(bias[:, None])

    with pytest.raises(AssertionError, match="off by"):
        check(spoil)


@pytest.mark.parametrize("frames", [0, 40, TINY.sliding_window - 2])
def test_a_stream_that_forgets_how_far_it_is_cannot_see_what_it_carries(
    frames: int, check: Callable[..., None]
) -> None:
    with pytest.raises(AssertionError, match="off by"):
        check(lambda state: state.frames.fill_(frames))


def test_a_stream_that_thinks_itself_farther_than_it_is_sees_what_never_was(
    decoder: IncrementalDecoder, codes: Tensor, expected: Tensor
) -> None:
    state = decoder.begin(1)
    first = decoder.step(codes[..., :3], state)
    state.frames.fill_(50)
    second = decoder.step(codes[..., 3:6], state)
    assert_exact(first, expected[:, : 3 * SAMPLES])
    with pytest.raises(AssertionError, match="off by"):
        assert_exact(second, expected[:, 3 * SAMPLES : 6 * SAMPLES])


@pytest.mark.parametrize("change", [-1, 1])
def test_a_window_that_is_one_frame_off_is_heard(
    change: int, weights: dict[str, Tensor], codes: Tensor, expected: Tensor
) -> None:
    config = replace(TINY, sliding_window=TINY.sliding_window + change)
    audio = IncrementalDecoder(build(config, weights)).decode(codes[..., :100])
    with pytest.raises(AssertionError, match="off by"):
        assert_exact(audio, expected[:, : 100 * SAMPLES])


def test_a_stream_of_a_year_is_as_exact_as_a_new_one(decoder: IncrementalDecoder, codes: Tensor, begun: State) -> None:
    young, old = begun.clone(), begun.clone()
    old.frames.fill_(int(12.5 * 86_400 * 365))
    following = codes[..., BEGUN : BEGUN + 2]
    assert torch.equal(decoder.step(following, young), decoder.step(following, old))


def test_a_state_never_grows_and_never_moves(decoder: IncrementalDecoder, codes: Tensor) -> None:
    state = decoder.begin(1)
    size, places = state.nbytes, (state.memory.data_ptr(), state.frames.data_ptr())
    streamed(decoder, packets(codes, [50]), state)
    assert (state.memory.data_ptr(), state.frames.data_ptr()) == places
    assert state.nbytes == size == 4 * state.memory.numel() + 8
    assert state.frames.tolist() == [FRAMES]


def test_a_state_of_the_published_decoder_has_about_5_mb() -> None:
    with torch.device("meta"):
        state = IncrementalDecoder(Decoder(CodecConfig())).begin(1)
    assert 5.0e6 < state.nbytes < 5.4e6


def test_a_state_may_be_used_in_inference_mode_and_out_of_it(
    decoder: IncrementalDecoder, codes: Tensor, expected: Tensor
) -> None:
    with torch.inference_mode():
        state = decoder.begin(1)
        decoder.step(codes[..., 5:7], state)
        clone = state.clone()
    for used in (state, clone):
        used.put(0, decoder.begin(1))
        assert_exact(decoder.step(codes[..., :2], used), expected[:, : 2 * SAMPLES])


def test_a_clone_goes_its_own_way(decoder: IncrementalDecoder, codes: Tensor, begun: State) -> None:
    original, clone = begun.clone(), begun.clone()
    decoder.step(codes[..., :7], clone)
    assert torch.equal(original.memory, begun.memory)
    assert torch.equal(original.frames, begun.frames)
    following = codes[..., BEGUN : BEGUN + 2]
    assert torch.equal(decoder.step(following, original), decoder.step(following, begun.clone()))
    assert not torch.equal(clone.memory, original.memory)


class _Cancelled(BaseException):
    """As a cancellation or an interrupt would."""


@pytest.mark.parametrize("name", ["quantizer", *LAYERS])
def test_a_step_that_fails_anywhere_leaves_the_state_as_it_was(
    name: str, decoder: IncrementalDecoder, codes: Tensor, begun: State
) -> None:
    state = begun.clone()

    def fail(*_: object) -> None:
        raise _Cancelled

    hook = decoder.network.get_submodule(name).register_forward_hook(fail)
    with hook, pytest.raises(_Cancelled):
        decoder.step(codes[..., :3], state)
    assert torch.equal(state.memory, begun.memory)
    assert torch.equal(state.frames, begun.frames)


def test_codes_that_no_codebook_has_leave_the_state_as_it_was(
    decoder: IncrementalDecoder, codes: Tensor, begun: State
) -> None:
    state = begun.clone()
    with pytest.raises(IndexError):
        decoder.step(torch.full_like(codes[..., :1], TINY.codebook_size), state)
    assert torch.equal(state.memory, begun.memory)
    assert torch.equal(state.frames, begun.frames)


@pytest.mark.parametrize("shape", [(1, 16, 0), (1, 15, 2), (2, 16, 2), (16, 2)])
def test_codes_of_another_shape_are_refused(shape: tuple[int, ...], decoder: IncrementalDecoder) -> None:
    with pytest.raises(ValueError, match="no frames of shape"):
        decoder.step(torch.zeros(shape, dtype=torch.int64), decoder.begin(1))


def test_streams_of_a_batch_may_be_at_different_places(
    decoder: IncrementalDecoder, codes: Tensor, expected: Tensor
) -> None:
    """Row 0 plays on, row 1 is given to a new stream twice, row 2 waits each second step."""
    state = decoder.begin(3)
    heard: list[list[Tensor]] = [[], [], []]
    at = [0, 0, 0]
    for number in range(30):
        if number in (7, 19):
            state.put(1, decoder.begin(1))
            heard[1], at[1] = [], 0
        active = [True, True, number % 2 == 0]
        part = torch.cat([codes[..., place : place + 3] for place in at])
        audio = decoder.step(part, state, torch.tensor(active))
        for row in range(3):
            if active[row]:
                heard[row].append(audio[row : row + 1])
                at[row] += 3
    assert state.frames.tolist() == at == [90, 33, 45]
    for row in range(3):
        assert_exact(torch.cat(heard[row], dim=1), expected[:, : at[row] * SAMPLES])


def test_a_row_that_waits_stays_as_it_is_bit_for_bit(decoder: IncrementalDecoder, begun: State) -> None:
    state = State(begun.memory.repeat(2, 1), begun.frames.repeat(2))
    decoder.step(random_codes(2, 2, seed=3), state, torch.tensor([True, False]))
    assert torch.equal(state.memory[1], begun.memory[0])
    assert not torch.equal(state.memory[0], begun.memory[0])
    assert state.frames.tolist() == [BEGUN + 2, BEGUN]


def test_a_row_does_not_hear_its_neighbours(decoder: IncrementalDecoder) -> None:
    mine = random_codes(1, 20, seed=4)

    def beside(seed: int, resets: bool) -> Tensor:
        state = decoder.begin(4)
        others = random_codes(3, 20, seed)
        heard = []
        for start in range(0, 20, 2):
            if resets and start % 10 == 0:
                state.put(3, decoder.begin(1))
            rows = torch.cat([others[:1], mine, others[1:]])[..., start : start + 2]
            heard.append(decoder.step(rows, state)[1])
        return torch.cat(heard)

    assert torch.equal(beside(5, resets=False), beside(6, resets=True))


def test_a_step_is_the_same_operations_whatever_the_state_holds(
    decoder: IncrementalDecoder, codes: Tensor, expected: Tensor
) -> None:
    """Recorded at the first frame of a stream and played back later, as a CUDA graph would be."""

    def step(part: Tensor, memory: Tensor, frames: Tensor) -> Tensor:
        return decoder.step(part, State(memory, frames))

    fresh = decoder.begin(1)
    recorded: Any = make_fx(step)(codes[..., :5], fresh.memory, fresh.frames)
    state = decoder.begin(1)
    parts = codes[..., : BEGUN + 20].split(5, dim=2)
    audio = torch.cat([recorded(part, state.memory, state.frames) for part in parts], dim=1)
    assert_exact(audio, expected[:, : (BEGUN + 20) * SAMPLES])
    assert state.frames.tolist() == [BEGUN + 20]

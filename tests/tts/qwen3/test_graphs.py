"""Graphs through a driver that traces: like CUDA's, it records what is done once, and does just that again."""

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from torch import Tensor  # noqa: E402

from daemons.tts.engines.qwen3.graphs import Graphed, Miss  # noqa: E402
from tests.tts.qwen3.tracing import TracingDriver  # noqa: E402


class Adder:
    """Has a state at a fixed address."""

    def __init__(self) -> None:
        self.sums = torch.zeros(3)

    def __call__(self, given: Tensor) -> tuple[Tensor, ...]:
        self.sums.copy_(self.sums + given)
        return (self.sums * 2,)


def test_a_replay_does_what_the_function_does_and_changes_its_state() -> None:
    adder, plain = Adder(), Adder()
    graphed = Graphed("add", adder, TracingDriver())
    graphed.capture(torch.ones(3))
    adder.sums.zero_()
    for number in range(5):
        given = torch.arange(3.0) + number
        (doubled,) = graphed(given)
        assert torch.equal(doubled, plain(given)[0])
    assert torch.equal(adder.sums, plain.sums)
    assert graphed.replays == 5
    assert not graphed.misses


def test_nothing_is_captured_after_the_start() -> None:
    driver = TracingDriver()
    graphed = Graphed("add", Adder(), driver)
    graphed.capture(torch.ones(3))
    for given in (torch.ones(3), torch.ones(1), torch.ones(1)):
        graphed(given)
    assert driver.captures == 1
    assert graphed.misses == {Miss.SHAPE: 2}


def branches(given: Tensor) -> tuple[Tensor, ...]:
    return (given + 1,) if given.sum() > 0 else (given - 1,)


def test_what_cannot_be_captured_runs_eagerly() -> None:
    graphed = Graphed("branch", branches, TracingDriver())
    graphed.capture(torch.ones(2))
    assert torch.equal(graphed(-torch.ones(2))[0], -2 * torch.ones(2))
    assert graphed.misses == {Miss.CAPTURE: 1}


@pytest.mark.parametrize("miss", [Miss.NO_DRIVER, Miss.SHAPE, Miss.DEVICE, Miss.POSITION])
def test_what_does_not_fit_runs_eagerly_and_is_counted(miss: Miss) -> None:
    graphed = Graphed("double", lambda given: (given * 2,), None if miss is Miss.NO_DRIVER else TracingDriver())
    graphed.capture(torch.ones(2))
    given = torch.ones(4 if miss is Miss.SHAPE else 2, device="meta" if miss is Miss.DEVICE else "cpu")
    (doubled,) = graphed(given, within=miss is not Miss.POSITION)
    assert doubled.shape == given.shape
    assert doubled.device == given.device
    assert graphed.misses == {miss: 1}
    assert graphed.replays == 0

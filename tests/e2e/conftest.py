from collections.abc import Iterator

import pytest

from tests.e2e.box import Box


@pytest.fixture(scope="session")
def box() -> Iterator[Box]:
    """The box as it is installed, with its default models; every test leaves it ready for the next call."""
    with Box(endpoint_ms=480, queue_max=2) as box:
        yield box


@pytest.fixture
def persona(box: Box) -> Iterator[None]:
    """Lets a test change the persona; the next call is the installed one's again."""
    yield
    box.write_persona()

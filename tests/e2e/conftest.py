from collections.abc import Iterator

import pytest

from ops.private_box import PrivateBox


@pytest.fixture(scope="session")
def box() -> Iterator[PrivateBox]:
    """The box as it is installed, with its default models; every test leaves it ready for the next call."""
    with PrivateBox(queue_max=2) as box:
        yield box


@pytest.fixture
def persona(box: PrivateBox) -> Iterator[None]:
    """Lets a test change the persona; the next call is the installed one's again."""
    yield
    box.write_persona()

import sys

import pytest


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """Networks of these sizes are slower on several, and the machine has other tests to run."""
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(1)

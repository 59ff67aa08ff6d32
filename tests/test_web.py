import subprocess

import pytest

from daemons import settings
from ops import page

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]


def test_the_page_passes_its_own_tests() -> None:
    """vitest, in web/: the state machine, captions, time line, admission."""
    npm, environment = page.node(settings.load())
    done = subprocess.run([npm, "test"], cwd=page.WEB, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr

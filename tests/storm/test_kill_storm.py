import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_a_training_that_is_killed_again_and_again_ends_with_the_same_bits(tmp_path):
    storm = Path(__file__).with_name("kill_storm.py")
    done = subprocess.run(
        [
            sys.executable,
            storm,
            "--subject",
            "tiny",
            "--kills",
            "8",
            "--launch-kills",
            "2",
            "--folder",
            tmp_path,
            "--minutes",
            "9",
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    assert "| kills (SIGKILL) | 8 | 2 |" in done.stdout

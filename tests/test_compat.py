"""Repairs of third-party imports do what they say."""

import subprocess
import sys


def test_timm_can_be_imported_before_a_model_is_built() -> None:
    code = "import gss.recipes.gss.build, timm; assert timm.is_model('resnet18')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr

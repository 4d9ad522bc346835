"""Repairs of third-party imports do what they say, and nothing to those who use the real thing."""

import subprocess
import sys

import pytest

UNCOMPILED = """
import sys, torch
from torch.nn.parallel import DistributedDataParallel
from gss._compat import import_timm, postpone_compiler

postpone_compiler()
torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
layer = DistributedDataParallel(torch.nn.Linear(3, 3))
optimizer = torch.optim.AdamW(layer.parameters(), fused=True)
layer(torch.ones(2, 3)).sum().backward()
optimizer.step()
optimizer.zero_grad()
torch.empty(3, device="meta").normal_()
import_timm()
assert "torch._dynamo.eval_frame" not in sys.modules, "a stage would wait a second for a compiler it has no use for"
"""
COMPILED = """
compiled = torch.compile(lambda x: (x.sin() + 1).cos(), backend="eager", fullgraph=True)
assert torch.equal(compiled(torch.ones(4)), (torch.ones(4).sin() + 1).cos())
import torch._dynamo.utils
assert torch._dynamo is sys.modules["torch._dynamo"] and torch._dynamo.utils is sys.modules["torch._dynamo.utils"]
assert torch._dynamo.eval_frame.config is torch._dynamo.config is sys.modules["torch._dynamo.config"], "loaded twice"
assert torch._dynamo.utils.get_optimize_ddp_mode() == "ddp_optimizer", "what it was said to be before it was loaded"
optimizer.step()
"""


@pytest.mark.parametrize("first", ["", "import torch._dynamo.config"])
def test_the_compiler_is_loaded_for_those_who_compile_alone(first: str) -> None:
    """`first`: the part of the compiler that somebody imports before the whole."""
    done = subprocess.run(
        [sys.executable, "-c", UNCOMPILED + first + COMPILED], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_timm_can_be_imported_before_a_model_is_built() -> None:
    code = "import gss.recipes.gss.build, timm; assert timm.is_model('resnet18')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr

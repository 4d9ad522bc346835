"""From descriptions to modules."""

import pytest
import torch

from gss.recipes.gss import assemble
from gss.recipes.gss.assemble import at_precision
from gss.recipes.gss.tokenizer.dvae import DVAE


@pytest.mark.parametrize(
    ("wanted", "has_bf16", "used"),
    [
        ("fp32", True, "fp32"),
        ("bf16", True, "bf16"),
        ("bf16", False, "fp32"),
        ("fp16", True, "fp32"),
    ],
)
def test_a_tokenizer_computes_in_lower_precision_where_the_cpu_can(wanted, has_bf16, used, monkeypatch):
    monkeypatch.setattr(assemble, "cpu_has_bf16", lambda: has_bf16)
    dvae = at_precision(DVAE(vocab_size=32, n_hid=8, n_init=8), wanted, torch.device("cpu"))
    assert dvae.precision == used
    assert dvae.decode(dvae.encode(torch.rand(1, 3, 16, 16))).dtype == torch.float32


def test_torch_tells_of_bf16_by_the_names_that_are_asked_for():
    assert {"avx512_bf16", "amx_bf16", "bf16"} & torch.cpu.get_capabilities().keys()

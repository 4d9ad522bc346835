"""The switches of bench/gpu.py: what a process does before it measures. Everything else is the configuration."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from gss.benchmark import measure
from gss.nets import losses, window
from gss.recipes.gss import benchmark, rehearse
from gss.recipes.gss.tokenizer import dvae as dvae_module
from gss.recipes.gss.tokenizer.dvae import DVAE, Block
from gss.train import state

EXACT = ("latent_prior.training.precision=fp32", "tokenizer.precision=fp32")


def _tf32_everywhere() -> None:
    torch.backends.cuda.matmul.allow_tf32 = True


def _no_tf32() -> None:
    torch.backends.cudnn.allow_tf32 = False


def _search_algorithms() -> None:
    torch.backends.cudnn.benchmark = True


def _planes() -> None:
    torch.channels_last = torch.contiguous_format  # the project asks for it by this name at run time, everywhere


def _plain_attention() -> None:
    for kernel in ("flash", "mem_efficient", "cudnn"):
        getattr(torch.backends.cuda, f"enable_{kernel}_sdp")(False)


def _plain_optimiser() -> None:
    build = state.build_optimizer

    def unfused(*arguments: Any) -> torch.optim.Optimizer:
        optimizer = build(*arguments)
        for group in optimizer.param_groups:
            group["fused"] = None
        return optimizer

    state.build_optimizer = unfused  # type: ignore[assignment]


def _whole_scores() -> None:
    losses._SCORES = losses._SCORES_ON_GPU = 2**62


def _whole_blocks() -> None:
    window._LARGE = 2**62


def _whole_pictures() -> None:
    dvae_module._LARGE = dvae_module._LOGITS_AT_ONCE = 2**62


def _autocast() -> None:
    decode = DVAE.decode

    def outside(self: DVAE, tokens: Tensor) -> Tensor:
        with torch.autocast(tokens.device.type, enabled=False):
            return decode(self, tokens)

    DVAE.decode = outside  # type: ignore[method-assign]
    torch.autocast(measure.one_process().device.type, torch.bfloat16).__enter__()


def _compiled() -> None:
    networks = benchmark.random_networks
    backend = "inductor" if torch.cuda.is_available() else "eager"  # on a CPU: does it trace?

    def compiled(*arguments: Any) -> Any:
        prior, dvae, *rest = networks(*arguments)
        for module in (prior.backbone, *(module for module in dvae.modules() if isinstance(module, Block))):
            module.compile(backend=backend)
        return prior, dvae, *rest

    for module in (benchmark, rehearse):
        module.random_networks = compiled  # type: ignore[attr-defined]


Switch = Callable[[], None]
COMMON: dict[str, Switch] = {
    "without channels-last": _planes,
    "without fused attention": _plain_attention,
    "token scores in one piece": _whole_scores,
    "Swin blocks in one piece": _whole_blocks,
    "dVAE maps in one piece": _whole_pictures,
    "cuDNN searches its algorithms": _search_algorithms,
}
# name -> further overrides, and switches of the process
OF_TRAINING: dict[str, tuple[tuple[str, ...], tuple[Switch, ...]]] = {
    "default of this page (bf16, tokenizer fp16)": ((), ()),
    "tokenizer bf16": (("tokenizer.precision=bf16",), ()),
    "tokenizer fp32 (TF32 in convolutions)": (("tokenizer.precision=fp32",), ()),
    "network fp32 (TF32 in convolutions)": (("latent_prior.training.precision=fp32",), ()),
    "network fp32, TF32 in all products": (("latent_prior.training.precision=fp32",), (_tf32_everywhere,)),
    "all fp32, no TF32": (EXACT, (_no_tf32,)),
    "without fused optimiser": ((), (_plain_optimiser,)),
    **{name: ((), (switch,)) for name, switch in COMMON.items()},
    "run.deterministic": (("run.deterministic=true",), ()),
    "compiled backbone and dVAE blocks": ((), (_compiled,)),
}
OF_PREDICTION: dict[str, tuple[tuple[str, ...], tuple[Switch, ...]]] = {
    "as the project predicts (fp32, tokenizer fp16)": ((), ()),
    "tokenizer bf16": (("tokenizer.precision=bf16",), ()),
    "tokenizer fp32 (TF32 in convolutions)": (("tokenizer.precision=fp32",), ()),
    "all fp32, no TF32": (EXACT, (_no_tf32,)),
    "TF32 in all products": ((), (_tf32_everywhere,)),
    "autocast bf16 but for the tokenizer": ((), (_autocast,)),
    **{name: ((), (switch,)) for name, switch in COMMON.items()},
    "compiled backbone and dVAE blocks": ((), (_compiled,)),
}

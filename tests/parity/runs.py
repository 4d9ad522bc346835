"""The ten published training configurations, in the plain numbers a user builds them from."""

from dataclasses import dataclass
from typing import Any, Literal

from gss.recipes.gss.build import build_latent_prior, build_posterior
from gss.recipes.gss.latent_prior import LatentPrior
from gss.recipes.gss.posterior import Posterior

SWIN: dict[str, Any] = {"backbone": "swin_large_patch4_window12_384", "drop_path": 0.3}
R101: dict[str, Any] = {"backbone": "resnet101c", "output_stride": 8, "swin_depth": 6}
HRNET: dict[str, Any] = {"backbone": "hrnet_w48", "swin_depth": 6}


@dataclass(frozen=True)
class Published:
    """One configuration: GSS-FF where `posterior_depth` is None, GSS-FT-W behind a frozen backbone else."""

    sizes: dict[str, Any]
    num_classes: int
    kind: Literal["ff", "single_fusion"] = "ff"
    posterior_depth: int | None = None

    def prior(self) -> LatentPrior:
        if self.posterior_depth is None:
            return build_latent_prior(num_classes=self.num_classes, kind=self.kind, **self.sizes)
        return build_latent_prior(num_classes=self.num_classes, kind="tokens", frozen_levels=4, **self.sizes)

    def posterior(self) -> Posterior | None:
        return build_posterior(self.num_classes, depth=self.posterior_depth) if self.posterior_depth else None


PUBLISHED = {
    "gss-ff_r101_768x768_80k_cityscapes": Published(R101, 19),
    "gss-ff_swin-l_768x768_80k_cityscapes": Published(SWIN, 19),
    "gss-ft-w_r101_768x768_80k_40k_cityscapes": Published(R101, 19, posterior_depth=1),
    "gss-ft-w_swin-l_768x768_80k_40k_cityscapes": Published(SWIN, 19, posterior_depth=1),
    "gss-ff_swin-l_512x512_160k_ade20k": Published(SWIN, 150),
    "gss-ft-w_swin-l_512x512_160k_ade20k": Published(SWIN, 150, posterior_depth=2),
    "gss-ff_hrnet-w48_512x512_160k_mseg": Published(HRNET, 194, "single_fusion"),
    "gss-ff_swin-l_512x512_160k_mseg": Published(SWIN, 194, "single_fusion"),
    "gss-ft-w_hrnet-w48_512x512_160k_40k_mseg": Published(HRNET, 194, posterior_depth=2),
    "gss-ft-w_swin-l_512x512_160k_40k_mseg": Published(SWIN, 194, posterior_depth=2),
}

"""HRNetV2-W48 for segmentation as MSeg published it, written out plainly: a dictionary of tensors under the published
names, and functions."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

WIDTHS = (48, 96, 192, 384)
MODULES = {2: 1, 3: 4, 4: 3}  # of each stage
MOMENTUM, EPSILON = 0.01, 1e-5

State = dict[str, Tensor]


def shapes(num_classes: int) -> dict[str, tuple[int, ...]]:
    """Shape of every entry of a published state dict."""
    found: dict[str, tuple[int, ...]] = {}

    def convolution(name: str, inner: int, outer: int, side: int) -> None:
        found[f"{name}.weight"] = (outer, inner, side, side)

    def norm(name: str, width: int) -> None:
        for end in ("weight", "bias", "running_mean", "running_var"):
            found[f"{name}.{end}"] = (width,)
        found[f"{name}.num_batches_tracked"] = ()

    convolution("conv1", 3, 64, 3)
    norm("bn1", 64)
    convolution("conv2", 64, 64, 3)
    norm("bn2", 64)
    for block in range(4):
        name = f"layer1.{block}"
        for place, (inner, outer, side) in enumerate([(256 if block else 64, 64, 1), (64, 64, 3), (64, 256, 1)], 1):
            convolution(f"{name}.conv{place}", inner, outer, side)
            norm(f"{name}.bn{place}", outer)
        if block == 0:
            convolution(f"{name}.downsample.0", 64, 256, 1)
            norm(f"{name}.downsample.1", 256)
    for name, inner, outer in (
        ("transition1.0", 256, 48),
        ("transition1.1.0", 256, 96),
        ("transition2.2.0", 96, 192),
        ("transition3.3.0", 192, 384),
    ):
        convolution(f"{name}.0", inner, outer, 3)
        norm(f"{name}.1", outer)
    for stage, count in MODULES.items():
        for module in range(count):
            for branch in range(stage):
                for block in range(4):
                    for place in (1, 2):
                        name = f"stage{stage}.{module}.branches.{branch}.{block}"
                        convolution(f"{name}.conv{place}", WIDTHS[branch], WIDTHS[branch], 3)
                        norm(f"{name}.bn{place}", WIDTHS[branch])
            for name, inner, outer, side in fusions(f"stage{stage}.{module}", stage):
                convolution(f"{name}.0", inner, outer, side)
                norm(f"{name}.1", outer)
    found["last_layer.0.weight"], found["last_layer.0.bias"] = (720, 720, 1, 1), (720,)
    norm("last_layer.1", 720)
    found["last_layer.3.weight"], found["last_layer.3.bias"] = (num_classes, 720, 1, 1), (num_classes,)
    return found


def fusions(module: str, branches: int) -> Iterator[tuple[str, int, int, int]]:
    """Name, input and output width and kernel of the convolutions that carry one branch to another."""
    for to in range(branches):
        for source in range(branches):
            name = f"{module}.fuse_layers.{to}.{source}"
            if source > to:
                yield name, WIDTHS[source], WIDTHS[to], 1
            for step in range(to - source):
                is_last = step == to - source - 1
                yield f"{name}.{step}", WIDTHS[source], WIDTHS[to if is_last else source], 3


class PlainHRNet:
    """The forward pass.

    Args:
        state: tensors by published name; in training its running statistics are replaced.
    """

    def __init__(self, state: State, *, training: bool = False) -> None:
        self.state, self.training = state, training

    def __call__(self, image: Tensor) -> Tensor:
        """Normalised image [B, 3, H, W] -> logits [B, N, H, W]."""
        x = self.convolve("conv1", "bn1", image, stride=2).relu()
        x = self.convolve("conv2", "bn2", x, stride=2).relu()
        for block in range(4):
            x = self.bottleneck(f"layer1.{block}", x)
        maps = [
            self.convolve("transition1.0.0", "transition1.0.1", x).relu(),
            self.convolve("transition1.1.0.0", "transition1.1.0.1", x, stride=2).relu(),
        ]
        maps = self.stage(2, maps)
        maps.append(self.convolve("transition2.2.0.0", "transition2.2.0.1", maps[-1], stride=2).relu())
        maps = self.stage(3, maps)
        maps.append(self.convolve("transition3.3.0.0", "transition3.3.0.1", maps[-1], stride=2).relu())
        maps = self.stage(4, maps)
        joined = torch.cat([upsampled(x, maps[0]) for x in maps], 1)
        y = F.conv2d(joined, self.state["last_layer.0.weight"], self.state["last_layer.0.bias"])
        y = self.norm("last_layer.1", y).relu()
        y = F.conv2d(y, self.state["last_layer.3.weight"], self.state["last_layer.3.bias"])
        return F.interpolate(y, image.shape[2:], mode="bilinear", align_corners=True)

    def convolve(self, name: str, norm: str, x: Tensor, stride: int = 1) -> Tensor:
        weight = self.state[f"{name}.weight"]
        return self.norm(norm, F.conv2d(x, weight, stride=stride, padding=weight.shape[2] // 2))

    def norm(self, name: str, x: Tensor) -> Tensor:
        mean, variance = self.state[f"{name}.running_mean"], self.state[f"{name}.running_var"]
        if self.training:
            found = x.mean((0, 2, 3)), x.var((0, 2, 3), unbiased=False)
            unbiased = x.var((0, 2, 3), unbiased=True)
            self.state[f"{name}.running_mean"] = (1 - MOMENTUM) * mean + MOMENTUM * found[0]
            self.state[f"{name}.running_var"] = (1 - MOMENTUM) * variance + MOMENTUM * unbiased
            self.state[f"{name}.num_batches_tracked"] = self.state[f"{name}.num_batches_tracked"] + 1
            mean, variance = found
        mean, scale = mean[:, None, None], self.state[f"{name}.weight"] / torch.sqrt(variance + EPSILON)
        return (x - mean) * scale[:, None, None] + self.state[f"{name}.bias"][:, None, None]

    def bottleneck(self, name: str, x: Tensor) -> Tensor:
        y = self.convolve(f"{name}.conv1", f"{name}.bn1", x).relu()
        y = self.convolve(f"{name}.conv2", f"{name}.bn2", y).relu()
        y = self.convolve(f"{name}.conv3", f"{name}.bn3", y)
        if f"{name}.downsample.0.weight" in self.state:
            x = self.convolve(f"{name}.downsample.0", f"{name}.downsample.1", x)
        return (x + y).relu()

    def basic(self, name: str, x: Tensor) -> Tensor:
        y = self.convolve(f"{name}.conv1", f"{name}.bn1", x).relu()
        return (x + self.convolve(f"{name}.conv2", f"{name}.bn2", y)).relu()

    def stage(self, number: int, maps: list[Tensor]) -> list[Tensor]:
        for module in range(MODULES[number]):
            name = f"stage{number}.{module}"
            for branch in range(number):
                for block in range(4):
                    maps[branch] = self.basic(f"{name}.branches.{branch}.{block}", maps[branch])
            fused = []
            for to in range(number):
                total = self.carry(name, 0, to, maps)
                for source in range(1, number):
                    total = total + self.carry(name, source, to, maps)
                fused.append(total.relu())
            maps = fused
        return maps

    def carry(self, module: str, source: int, to: int, maps: list[Tensor]) -> Tensor:
        name, x = f"{module}.fuse_layers.{to}.{source}", maps[source]
        if source > to:
            return upsampled(self.convolve(f"{name}.0", f"{name}.1", x), maps[to])
        for step in range(to - source):
            x = self.convolve(f"{name}.{step}.0", f"{name}.{step}.1", x, stride=2)
            if step < to - source - 1:
                x = x.relu()
        return x


def upsampled(x: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(x, like.shape[2:], mode="bilinear", align_corners=False)


def filled(num_classes: int) -> State:
    """float64 sines for every entry, by its place among the names, of a size at which activations stay moderate."""
    state = {}
    for place, (name, shape) in enumerate(sorted(shapes(num_classes).items())):
        if name.endswith("num_batches_tracked"):
            state[name] = torch.tensor(place)
            continue
        count = max(1, torch.Size(shape).numel())
        sines = torch.sin(0.7 * torch.arange(count, dtype=torch.float64) ** 1.01 + place).view(shape)
        if len(shape) == 4:
            sines *= (2 / (shape[1] * shape[2] * shape[3])) ** 0.5
        elif name.endswith("running_var"):
            sines = 1 + 0.3 * sines
        elif name.endswith("weight"):
            sines = 0.5 + 0.1 * sines
        else:
            sines *= 0.1
        state[name] = sines
    return state

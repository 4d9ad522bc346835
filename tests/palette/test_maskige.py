"""Painting labels and reading colours back."""

import json

import pytest
import torch
from safetensors.torch import load_file

from gss.recipes.gss.palette.maskige import nearest, paint

SETS = [
    "exact",
    "int_random",
    "float_random",
    "midpoints",
    "near_midpoints",
    "grid",
    "out_of_range",
    "integer_ties",
]


@pytest.fixture(scope="module", params=["19", "150", "194"])
def recorded(request, parity):
    """Colours and recorded tensors of one published palette."""
    palettes = json.loads((parity / "palette.json").read_text())
    tensors = load_file(parity / "palette.safetensors")
    prefix = f"{request.param}."
    return torch.tensor(palettes[request.param]["palette"]), {
        key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)
    }


def random_palette(seed: int, num_classes: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    cells = torch.randperm(8**3, generator=generator)[: num_classes + 1]
    return torch.stack([cells // 64, cells // 8 % 8, cells % 8], dim=1) * 32 + 3


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.float32])
def test_paint_equals_the_recorded_colours(recorded, dtype):
    colours, tensors = recorded
    ids = tensors["encode_all.ids"].reshape(1, 16, 16)
    assert torch.equal(paint(ids.to(dtype), colours), tensors["encode_all.rgb"] / 255)


@pytest.mark.parametrize("name", SETS)
def test_nearest_equals_the_recorded_classes(recorded, name):
    colours, tensors = recorded
    rgb = tensors[f"decode.{name}.rgb"]
    expected = tensors[f"decode.{name}.ids"].reshape(-1)
    clear = tensors[f"decode.{name}.ambiguous"].reshape(-1) == 0
    found = nearest(rgb, colours).reshape(-1)
    assert torch.equal(found[clear], expected[clear].long())


def test_the_ignore_colour_is_like_any_other_where_a_row_follows_it(recorded):
    colours, tensors = recorded
    rgb = tensors["decode.exact.rgb"].expand(2, -1, -1, -1)
    found = nearest(rgb, torch.cat([colours, colours[-1:]]))
    assert torch.equal(found, tensors["decode_keep_ignore.ids"][:, 0].long())


def test_nearest_of_paint_is_the_identity_even_with_noise_below_half_the_smallest_distance():
    colours = random_palette(seed=1, num_classes=40)
    label = torch.arange(40, dtype=torch.uint8).reshape(1, 5, 8)
    rgb = paint(label, colours) * 255
    direction = torch.randn(rgb.shape, generator=torch.Generator().manual_seed(2))
    noise = direction / direction.norm(dim=1, keepdim=True) * 15.9  # smallest distance is 32
    assert torch.equal(nearest(rgb, colours), label.long())
    assert torch.equal(nearest(rgb + noise, colours), label.long())


def test_ignored_and_unknown_ids_get_the_last_colour():
    colours = random_palette(seed=3, num_classes=5)
    painted = paint(torch.tensor([[[255, 5, 200]]], dtype=torch.uint8), colours)
    assert torch.equal(painted[0, :, 0].T, colours[-1].float().div(255).expand(3, 3))


def test_nearest_never_returns_the_ignore_row_and_ties_go_to_the_lowest_class():
    colours = torch.tensor([[10, 0, 0], [30, 0, 0], [20, 0, 0]])
    rgb = torch.tensor([20.0, 0.0, 0.0]).reshape(1, 3, 1, 1)
    assert nearest(rgb, colours).item() == 0


def test_nearest_takes_no_map_per_class():
    """One map of the picture's size is compared at a time."""
    colours = random_palette(seed=4, num_classes=12)
    rgb = torch.rand(1, 3, 64, 64) * 255
    with torch.profiler.profile(profile_memory=True) as profile:
        nearest(rgb, colours)
    largest = max(event.self_cpu_memory_usage for event in profile.events())
    assert largest <= 64 * 64 * 8  # the int64 result

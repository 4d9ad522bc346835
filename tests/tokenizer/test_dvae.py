"""The dVAE equals DALL-E's: counts, the procedural check values, and the shortcuts that must change nothing."""

import pytest
import torch
from procedural import CASE_A, CASE_B, picture, procedural_dvae, procedural_values
from safetensors.torch import load_file

from gss.recipes.gss.tokenizer import dvae as module
from gss.recipes.gss.tokenizer.dvae import DVAE, Convolution, map_pixels

TOKENS_A = [[10, 10, 0, 0], [0, 10, 0, 10], [0, 10, 10, 10], [0, 10, 10, 10]]
TOKENS_B = [[80, 26, 154, 26], [286, 443, 118, 173], [443, 173, 266, 173], [118, 433, 118, 118]]
CASES = [
    pytest.param(
        CASE_A,
        (39876, 42938),
        TOKENS_A,
        (0.4470306, 0.0014408, 0.0077513, -0.1979110),
        (39.815623, 147.544590),
        (-0.5256612, -1.2368103, 0.6942779, 0.7261359, -0.1850434, 0.3576179),
        (-195.477895, 2889.565332),
        (86.5500, 39.8411, 180.7051),
        (107.0935, 39.7104, 180.7801),
        id="A",
    ),
    pytest.param(
        CASE_B,
        (715728, 678726),
        TOKENS_B,
        (-0.3009370, 0.2545928, 0.2751730, -0.1219913),
        (5.748368, 1534.280829),
        (-0.1900754, 0.6753121, -0.1862419, 0.2743173, 0.3684331, 0.3735307),
        (777.625529, 2613.695802),
        (112.3988, 179.3579, 112.7016),
        (138.8836, 53.2658, 244.6751),
        id="B",
    ),
]


def count(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_published_size_has_the_published_number_of_parameters():
    with torch.device("meta"):
        dvae = DVAE()
    assert (count(dvae.encoder), count(dvae.decoder)) == (53_786_240, 43_829_766)
    assert len(dvae.state_dict()) == 150


def test_procedural_generator_gives_the_first_values_of_the_specification():
    first = procedural_values("encoder.blocks.input.w", (8, 3, 7, 7)).flatten()[:4]
    assert first.tolist() == pytest.approx([-0.13234483, -0.12311111, -0.02229862, -0.11303951], abs=1e-8)
    first = procedural_values("decoder.blocks.input.w", (8, 32, 1, 1)).flatten()[:3]
    assert first.tolist() == pytest.approx([-1.58947170, 1.66681862, 0.27726930], abs=1e-7)


@pytest.mark.parametrize("case, counts, tokens, logits, logit_sums, outputs, output_sums, corner, range_", CASES)
def test_procedural_weights_give_the_numbers_of_the_specification(
    case, counts, tokens, logits, logit_sums, outputs, output_sums, corner, range_
):
    dvae, rgb = procedural_dvae(case), picture()
    assert (count(dvae.encoder), count(dvae.decoder)) == counts
    found = dvae.encode_logits(map_pixels(rgb))
    assert found[0, :4, 0, 0].tolist() == pytest.approx(logits, abs=1e-5)
    assert (found.double().sum().item(), found.double().abs().sum().item()) == pytest.approx(logit_sums, abs=2e-3)
    assert dvae.encode(rgb)[0].tolist() == tokens
    output = dvae.decode_logits(torch.tensor([tokens]))
    assert output[0, :, 0, 0].tolist() == pytest.approx(outputs, abs=1e-5)
    assert (output.double().sum().item(), output.double().abs().sum().item()) == pytest.approx(output_sums, abs=2e-2)
    picture255 = 255 * dvae.decode(torch.tensor([tokens]))
    assert picture255[0, :, 0, 0].tolist() == pytest.approx(corner, abs=1e-3)
    assert (picture255.mean().item(), picture255.min().item(), picture255.max().item()) == pytest.approx(
        range_, abs=1e-3
    )


def test_sizes_floor_by_eight_and_multiply_by_eight():
    dvae = DVAE(vocab_size=32, n_hid=8, n_init=8, blocks_per_group=1)
    for height, width in ((32, 48), (67, 93), (8, 8), (15, 31)):
        tokens = dvae.encode(torch.rand(1, 3, height, width))
        assert tokens.shape == (1, height // 8, width // 8) and tokens.dtype == torch.int64
        assert dvae.decode_logits(tokens).shape == (1, 6, height // 8 * 8, width // 8 * 8)
        assert dvae.decode(tokens).shape == (1, 3, height // 8 * 8, width // 8 * 8)


@pytest.mark.parametrize(("height", "width"), [(64, 40), (67, 33), (129, 48), (40, 24), (160, 8)])
def test_strips_equal_the_whole(height, width, monkeypatch):
    torch.manual_seed(0)
    dvae = DVAE(vocab_size=48, n_hid=8, n_init=8).double()
    mapped = map_pixels(torch.rand(2, 3, height, width, dtype=torch.float64))
    tokens = torch.randint(0, 48, (2, height // 8, width // 8))
    whole = dvae.encode_logits(mapped).detach(), dvae.decode_logits(tokens).detach()  # with gradients: no strips
    monkeypatch.setattr(module, "_LARGE", 0)
    monkeypatch.setattr(module, "_STRIP", 16)
    monkeypatch.setattr(module, "_LOGITS_AT_ONCE", 48 * 2 * (width // 8) * 3)
    with torch.no_grad():
        torch.testing.assert_close(dvae.encode_logits(mapped), whole[0], rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(dvae.decode_logits(tokens), whole[1], rtol=1e-10, atol=1e-10)
        assert torch.equal(dvae.encoder.tokens(mapped), whole[0].argmax(1))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_lower_precision_spares_the_published_two_layers(dtype):
    dvae = procedural_dvae(CASE_B)
    tokens, rgb = dvae.encode(picture()), dvae.decode(torch.arange(12).view(1, 3, 4))
    dvae.lower_precision(dtype)
    kept = [name for name, part in dvae.named_modules() if isinstance(part, Convolution) and part.w.dtype != dtype]
    assert kept == ["encoder.blocks.output.conv", "decoder.blocks.input"]
    assert dvae.encode_logits(map_pixels(picture())).dtype == torch.float32
    assert (dvae.encode(picture()) == tokens).float().mean() > 0.8
    assert (dvae.decode(torch.arange(12).view(1, 3, 4)) - rgb).abs().max() < 0.05


def test_half_precision_keeps_the_interface():
    dvae = DVAE(vocab_size=32, n_hid=8, n_init=8).to(torch.bfloat16)
    assert dvae.decode(dvae.encode(torch.rand(1, 3, 16, 16))).dtype == torch.float32


def test_recorded_numbers_of_the_published_code_are_met(parity):
    recorded = load_file(parity / "dvae_small.safetensors")
    dvae = DVAE(vocab_size=64, n_hid=16, n_init=8).double()
    dvae.load_state_dict({name[3:]: value for name, value in recorded.items() if name.startswith("sd.")})
    for case in "abcde":
        rgb = recorded[f"{case}.img"].double()
        assert_recorded(dvae.encode_logits(map_pixels(rgb)), recorded[f"{case}.logits"], case)
        assert torch.equal(dvae.encode(rgb), recorded[f"{case}.indices"].long()), case
    for case in ("a", "b", "c", "d", "e", "rand"):
        tokens = recorded[f"{case}.indices"].long()
        assert_recorded(dvae.decode_logits(tokens), recorded[f"{case}.decoded"], case)
        assert_recorded(dvae.decode(tokens), recorded[f"{case}.rgb"], case)


def assert_recorded(ours, theirs, case):
    relative = 1e-9 if theirs.dtype == torch.float64 else 1e-6
    assert ours.shape == theirs.shape, case
    assert (ours - theirs).abs().max() <= 1e-9 + relative * theirs.abs().max(), case

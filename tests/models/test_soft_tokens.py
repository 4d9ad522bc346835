"""Tokens decoded as the expectation of their embeddings: the plain formula, its limit, its pieces, its training."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import gss
from gss.errors import ConfigError
from gss.evaluate.inference import Inference, predict
from gss.nets import losses
from gss.recipes.gss.model import GSS
from gss.recipes.gss.posterior import ConvPosterior, NearestPosterior
from gss.recipes.gss.tokenizer.dvae import DVAE, unmap_pixels
from gss.stages.run import Run
from gss.use.folder import predict_files
from tests.models.test_training import COLOURS, N, V, make
from tests.use.models import write_models

COLD, WARM = 1e-6, 0.02


def model(temperature: float | None, *, nearest: bool = False, dtype: torch.dtype = torch.float32, **more: Any) -> GSS:
    prior, dvae = make()
    with torch.no_grad():  # the start's scores are nearly equal
        prior.head.conv_seg.weight.mul_(20)
    posterior = NearestPosterior(COLOURS, 2000.0) if nearest else ConvPosterior(N, 8)
    return GSS(prior, dvae, posterior, token_temperature=temperature, **more).to(dtype).eval()


def plain(model: GSS, image: Tensor, temperature: float) -> Tensor:
    """The maskige by the formula: the softmax of the whole map goes through the decoder's first convolution."""
    head = model.prior.head
    scores = head.conv_seg(head.hidden(head.fuse(model.prior.backbone(image))))  # [B, V, h, w]
    mixture = torch.exp(scores / temperature - torch.logsumexp(scores / temperature, 1, keepdim=True))
    means = model.tokenizer.decoder(mixture)[:, :3]
    return unmap_pixels(torch.sigmoid(means))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_maskige_is_that_of_the_whole_mixture(dtype: torch.dtype) -> None:
    soft, image = model(WARM, dtype=dtype), torch.randn(2, 3, 37, 50, dtype=dtype)
    with torch.no_grad():
        expected = plain(soft, image, WARM)
        found = soft.rgb(image)
        assert found.dtype == dtype
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-12 if dtype == torch.float64 else 1e-5)
        assert (found - model(None, dtype=dtype).rgb(image)).abs().max() > 1e-3  # not the hard tokens'


@pytest.mark.parametrize("nearest", [False, True])
@pytest.mark.parametrize("inference", [Inference(), Inference("slide", (48, 48), (32, 32), flip=True)])
def test_cold_mixtures_are_the_most_probable_tokens(nearest: bool, inference: Inference) -> None:
    photograph = np.random.default_rng(0).integers(0, 256, (70, 90, 3)).astype(np.uint8)
    answers = []
    for temperature in (None, COLD):
        shares = torch.empty(N, 70, 90)
        made = model(temperature, nearest=nearest)
        ids = predict(made, photograph, inference, device=torch.device("cpu"), probabilities=shares)
        answers.append((ids, shares))
    (ids, shares), (cold_ids, cold_shares) = answers
    assert torch.equal(ids, cold_ids) and torch.equal(shares, cold_shares)


def test_cold_mixtures_are_the_most_probable_tokens_in_double_precision() -> None:
    image = torch.randn(1, 3, 37, 50, dtype=torch.float64)
    with torch.no_grad():
        hard, cold = (model(temperature, dtype=torch.float64).scores(image) for temperature in (None, COLD))
    assert hard.dtype == torch.float64 and torch.equal(hard, cold)


@pytest.mark.parametrize("scores", [V, 7 * V, 2**22])
def test_pieces_of_any_size_give_the_same(scores: int, monkeypatch: pytest.MonkeyPatch) -> None:
    soft, image = model(WARM, dtype=torch.float64), torch.randn(2, 3, 37, 50, dtype=torch.float64)
    with torch.no_grad():
        whole = plain(soft, image, WARM)
        monkeypatch.setattr(losses, "_SCORES", scores)
        torch.testing.assert_close(soft.rgb(image), whole, rtol=0, atol=1e-12)


class Largest(TorchDispatchMode):
    """The number of values of the largest tensor that has `channels` in its shape."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels, self.found = channels, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for each in result if isinstance(result, tuple | list) else (result,):
            if isinstance(each, Tensor) and self.channels in each.shape:
                self.found = max(self.found, each.numel())
        return result


def test_no_map_has_a_channel_for_each_token(monkeypatch: pytest.MonkeyPatch) -> None:
    number = 37  # no other size is 37
    prior = make()[0]
    prior.head.vocab_size, prior.head.conv_seg = number, torch.nn.Conv2d(8, number, 1)
    soft = GSS(prior, DVAE(number, 8, 8, 1), ConvPosterior(N, 8), token_temperature=WARM).eval()
    image = torch.randn(1, 3, 128, 128)
    monkeypatch.setattr(losses, "_SCORES", 50 * number)
    with torch.no_grad(), Largest(number) as largest:
        soft.scores(image)
    assert largest.found == 50 * number
    with torch.no_grad(), Largest(number) as largest:
        plain(soft, image, WARM)
    assert largest.found == number * 32 * 32  # it would have been seen


def test_the_probabilities_are_not_rounded_by_autocast() -> None:
    prior = model(None).prior
    fused = torch.randn(1, 8, 6, 7)
    table = torch.randn(V, 5)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        found = prior.head.expectation(fused, table, WARM)
        scores = prior.head.conv_seg(prior.head.hidden(fused))
    assert scores.dtype == torch.bfloat16 and found.dtype == torch.float32
    expected = (scores.double() / WARM).softmax(1).movedim(1, -1) @ table.double()
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-5)


def test_a_tokenizer_in_bf16_decodes_mixtures() -> None:
    exact, low = model(WARM), model(WARM)
    low.tokenizer.lower_precision(torch.bfloat16)
    image = torch.randn(1, 3, 40, 52)
    with torch.no_grad():
        assert low.rgb(image).dtype == torch.float32
        difference = (low.rgb(image) - exact.rgb(image)).abs()
        assert 0 < difference.max() < 0.05
        hard = model(None)
        hard.tokenizer.lower_precision(torch.bfloat16)
        low.token_temperature = COLD
        assert torch.equal(low.rgb(image), hard.rgb(image))


@pytest.mark.parametrize("name", ["gss_ff", "gss_ft"])
def test_gss_predict_takes_it_from_the_model_file(name: str, tmp_path: Path) -> None:
    photograph = np.random.default_rng(0).integers(0, 256, (40, 52, 3), dtype=np.uint8)
    found = {}
    for temperature in (None, COLD, 1.0):
        set_to = {} if temperature is None else {"token_temperature": temperature}
        folder = write_models(tmp_path / str(temperature), vote_temperature=50.0, **set_to)
        predictor = gss.load(folder / f"{name}.pth")
        assert predictor.model.protocol.get("token_temperature") == temperature
        assert ("token_temperature" in predictor.model.protocol) == (temperature is not None)
        found[temperature] = predictor.scores(photograph)
    np.testing.assert_array_equal(found[None], found[COLD])
    assert np.abs(found[None] - found[1.0]).max() > 1e-4


def test_a_folder_of_photographs_is_predicted_like_one(tmp_path: Path) -> None:
    folder = write_models(tmp_path / "model", token_temperature=1.0)
    photograph = np.random.default_rng(0).integers(0, 256, (40, 52, 3), dtype=np.uint8)
    (tmp_path / "in").mkdir()
    cv2.imwrite(str(tmp_path / "in" / "a.png"), photograph[..., ::-1])
    assert predict_files(folder / "gss_ft.pth", [str(tmp_path / "in")], tmp_path / "out", device="cpu") == 0
    ids = cv2.imread(str(tmp_path / "out" / "a.png"), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(ids, gss.load(folder / "gss_ft.pth").predict(photograph))


@pytest.mark.parametrize("value", ["0", "-1", "warm", "1e-9"])
def test_what_is_no_temperature_is_refused(value: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"evaluation\.token_temperature"):
        Run.open("toy", [f"evaluation.token_temperature={value}"], tmp_path)


def test_slices_know_the_temperatures_only_where_they_count(tmp_path: Path) -> None:
    def slices(*settings: str) -> dict[str, Any]:
        experiment = Run.open("toy", list(settings), tmp_path).experiment
        return {stage.name: experiment.slice(stage.name) for stage in experiment.kind.stages}

    def changed(*settings: str) -> set[str]:
        before, after = slices(*settings[1:]), slices(*settings)
        return {name for name in before if before[name] != after[name]}

    assert changed("evaluation.token_temperature=2") == {"evaluate"}
    assert changed("evaluation.token_temperature=2", "posterior.training.keep=best") == {"evaluate", "posterior"}
    said = Run.open("toy", ["evaluation.token_temperature=0.5"], tmp_path).experiment.protocol()
    assert said["token_temperature"] == 0.5
    published = Run.open("camvid_gss/seed_0", [], tmp_path).experiment.protocol()
    assert not published.keys() & {"token_temperature", "token_weight", "pixel_weight"}

import cv2
import numpy as np
import pytest
import torch

from gss.data.augment import NO_PHOTOMETRIC
from gss.data.device import distort, finish, normalise

MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


def batch(count: int = 2, height: int = 24, width: int = 32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 3, height, width), dtype=torch.uint8, generator=generator)


def published(image: np.ndarray, draws: tuple[float, ...]) -> np.ndarray:
    """The published distortion on uint8 [H, W, 3], every step through uint8."""
    brightness, contrast, saturation, hue, late_contrast = draws

    def convert(values: np.ndarray, alpha: float = 1.0, beta: float = 0.0) -> np.ndarray:
        return np.clip(values.astype(np.float32) * alpha + beta, 0, 255).astype(np.uint8)

    image = convert(convert(image, beta=brightness), contrast)
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
    hsv[..., 1] = convert(hsv[..., 1], saturation)
    hsv[..., 0] = (hsv[..., 0].astype(int) + int(hue)) % 180
    return convert(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB), late_contrast)


@pytest.mark.parametrize(
    "draws",
    [
        (20.0, 0.8, 1.4, 0.0, 1.0),
        (-30.0, 1.0, 0.6, 17.0, 1.3),
        (0.0, 1.45, 1.0, -18.0, 1.0),
        (5.5, 1.0, 1.5, 9.0, 0.5),
    ],
)
def test_distortion_is_the_published_one_up_to_its_rounding(draws):
    image = batch(1, 64, 64)
    ours = distort(image.float(), torch.tensor([draws]))[0].permute(1, 2, 0).numpy()
    difference = np.abs(ours - published(image[0].permute(1, 2, 0).numpy(), draws))
    assert difference.mean() < 2.0
    assert np.quantile(difference, 0.99) < 6.0


def test_no_draws_leave_the_image_unchanged_to_the_bit():
    image = batch().float() + torch.rand(2, 3, 24, 32)
    draws = torch.tensor([NO_PHOTOMETRIC, [9.0, 1.2, 0.7, 3.0, 1.0]])
    result = distort(image, draws)
    assert torch.equal(result[0], image[0])
    assert not torch.equal(result[1], image[1])


def test_grey_stays_grey_under_saturation_and_hue():
    grey = torch.full((1, 3, 4, 4), 100.0)
    assert torch.equal(distort(grey, torch.tensor([[0.0, 1.0, 1.5, 9.0, 1.0]])), grey)


def test_a_third_of_the_circle_turns_red_into_green():
    red = torch.tensor([200.0, 0.0, 0.0]).view(1, 3, 1, 1)
    turned = distort(red, torch.tensor([[0.0, 1.0, 1.0, 60.0, 1.0]]))  # 60 steps of two degrees
    assert torch.allclose(turned.flatten(), torch.tensor([0.0, 200.0, 0.0]), atol=1e-3)


def test_the_whole_turn_of_a_drawn_zero_is_none():
    image = batch().float()
    assert torch.allclose(distort(image, torch.tensor([[0.0, 1.0, 1.0, 180.0, 1.0]] * 2)), image, atol=1e-3)


def test_samples_do_not_influence_each_other():
    image = batch(3).float()
    draws = torch.tensor([[9.0, 1.2, 0.7, 3.0, 1.0], NO_PHOTOMETRIC, [0.0, 1.0, 1.3, -9.0, 0.7]])
    together = distort(image, draws)
    for row in range(3):
        assert torch.equal(together[row : row + 1], distort(image[row : row + 1], draws[row : row + 1]))


def test_padded_area_is_exactly_zero():
    image = batch()
    valid = torch.tensor([[0, 0, 24, 20], [7, 3, 17, 32]])
    draws = torch.tensor([[30.0, 1.4, 1.0, 0.0, 1.0]] * 2)
    result = finish(image, valid, draws, MEAN, STD)
    assert result.dtype == torch.float32
    expected = normalise(distort(image.float(), draws), MEAN, STD)
    for row, (top, left, bottom, right) in enumerate(valid.tolist()):
        inside = torch.zeros(result.shape[2:], dtype=torch.bool)
        inside[top:bottom, left:right] = True
        assert torch.equal(result[row], torch.where(inside, expected[row], 0.0))


def opencv_normalise(image: np.ndarray) -> np.ndarray:
    """The published normalisation of one RGB image [H, W, 3]: in place, in OpenCV, float64 constants."""
    result = image.astype(np.float32, order="C")
    cv2.subtract(result, np.float64(np.array(MEAN, np.float32)).reshape(1, -1), result)
    cv2.multiply(result, 1 / np.float64(np.array(STD, np.float32)).reshape(1, -1), result)
    return result


@pytest.mark.parametrize("fraction", [False, True], ids=["uint8", "float32"])
def test_normalise_equals_opencv_to_the_bit(fraction):
    levels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).expand(1, 3, 16, 16)
    image = levels + torch.rand(1, 3, 16, 16) if fraction else levels
    expected = opencv_normalise(image[0].permute(1, 2, 0).numpy())
    assert (normalise(image, MEAN, STD)[0].permute(1, 2, 0).numpy() == expected).all()


def test_the_constants_of_timm_are_the_published_ones():
    """timm gives them in 0..1; times 255 they must round to the same float32."""
    mean, std = ([255 * value for value in values] for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    assert (np.array([mean, std], np.float32) == np.array([MEAN, STD], np.float32)).all()
    assert torch.equal(normalise(batch(), mean, std), normalise(batch(), MEAN, STD))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_gives_the_numbers_of_the_cpu():
    image, valid = batch(), torch.tensor([[0, 0, 24, 20], [0, 0, 10, 32]])
    draws = torch.tensor([[9.0, 1.2, 0.7, 3.0, 1.0], [0.0, 1.0, 1.3, -9.0, 0.7]])
    on_cpu = finish(image, valid, draws, MEAN, STD)
    on_gpu = finish(image.cuda(), valid.cuda(), draws.cuda(), MEAN, STD).cpu()
    assert torch.allclose(on_cpu, on_gpu, atol=1e-4)
    assert torch.equal(normalise(image.cuda(), MEAN, STD).cpu(), normalise(image, MEAN, STD))

"""MSeg's protocol: against the plainly written one, its sizes and windows, memory, and what is refused."""

from collections.abc import Callable

import numpy as np
import oracle_mseg
import pytest
import torch
from torch import Tensor

from gss.config.schema import Evaluation
from gss.data.ids import tensor_dtype
from gss.evaluate import maps, multiscale
from gss.evaluate.inference import Inference, MSegInference, extra_pictures, inferences, one_inference, predict
from gss.evaluate.maps import windows
from gss.evaluate.multiscale import sides
from gss.evaluate.taxonomy import Target
from tests.normalised import Normalised

from .standins import CPU, ColourVotes, Convolution, Decoder, Position, class_image

MEAN, STD = (120.0, 110.0, 100.0), (60.0, 61.0, 62.0)
MS = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)


def protocol(base_size: int, crop: int, scales: tuple[float, ...] = (1.0,)) -> MSegInference:
    config = Evaluation.model_validate(
        {"protocol": "mseg", "crop": [crop, crop], "base_sizes": [base_size], "scales": list(scales)}
    )
    (found,) = inferences(config)
    assert isinstance(found, MSegInference)
    return found


class Shares(torch.nn.Module):
    """Votes that depend on the place in the window: nonnegative, of sum 1."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.scores = lambda image: Position(num_classes).scores((image + 3) * 40).softmax(1)
        self.eval()


class Logits(torch.nn.Module):
    """A small network, whose input is normalised."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        network = Convolution(num_classes)
        self.scores = lambda image: network.scores(image * 255)
        self.eval()


def target(num_classes: int, prediction: str) -> Target:
    """Three classes of a model for one of the test set, every fifth has no target."""
    becomes = [None if source % 5 == 4 else source // 3 for source in range(num_classes)]
    return Target.of([f"t{index}" for index in range((num_classes + 2) // 3)], becomes, prediction)


CASES = [  # size of the image, base size, crop, scales
    ((47, 61), 40, 33, (1.0,)),  # landscape
    ((61, 47), 40, 33, (1.0,)),  # portrait
    ((31, 45), 25, 33, (1.0,)),  # lower than the crop: a border above and below
    ((23, 29), 20, 41, (1.0,)),  # smaller than the crop in both
    ((45, 45), 33, 33, (1.0,)),  # one window of its size
    ((37, 53), 24, 25, MS),
    ((53, 37), 27, 25, (0.5, 1.25)),
]


@pytest.mark.parametrize("prediction", [None, "soft", "hard", "hard_ignore"])
@pytest.mark.parametrize("are_votes", [True, False])
@pytest.mark.parametrize(("size", "base_size", "crop", "scales"), CASES)
def test_the_protocol_written_out_plainly(
    size: tuple[int, int], base_size: int, crop: int, scales: tuple[float, ...], are_votes: bool, prediction: str | None
) -> None:
    num_classes = 26  # more than are worked on at a time
    image = np.random.default_rng(1).integers(0, 256, (*size, 3), dtype=np.uint8)
    model = Shares(num_classes) if are_votes else Logits(num_classes)
    asked = target(num_classes, prediction) if prediction else None
    soft = prediction == "soft"
    mapping = asked.matrix.double().numpy() if asked is not None and soft else np.eye(num_classes)

    def probabilities(window: np.ndarray) -> np.ndarray:
        scores = model.scores(torch.from_numpy(window.copy())[None])[0]
        return (scores if are_votes else scores.softmax(0)).double().numpy()

    expected = oracle_mseg.evaluate(probabilities, image, base_size, scales, crop, MEAN, STD, mapping)
    shares = torch.empty(len(expected), *size)
    found = predict(
        Normalised(model, MEAN, STD, are_votes),
        image,
        protocol(base_size, crop, scales),
        device=CPU,
        target=asked,
        probabilities=shares,
    )
    np.testing.assert_allclose(shares.numpy(), expected, atol=1e-5)
    ids = torch.from_numpy(expected.argmax(0))
    ids = asked.hard(ids) if asked is not None and not soft else ids
    assert found.dtype == tensor_dtype(len(expected))
    second, first = np.sort(expected, axis=0)[-2:]
    clear = torch.from_numpy(first - second > 1e-5)
    assert clear.float().mean() > 0.98
    assert torch.equal(found.long()[clear], ids.long()[clear])


@pytest.mark.parametrize(
    ("size", "short", "expected"),
    [
        ((1080, 1920), 360, (360, 640)),
        ((1920, 1080), 720, (1280, 720)),
        ((500, 375), 360, (480, 360)),
        ((2, 3), 1, (1, 2)),  # 1.5 goes up to the even number
        ((2, 5), 1, (1, 2)),  # 2.5 goes down to it
        ((7, 7), 5, (5, 5)),
    ],
)
def test_the_longer_side_is_rounded_half_to_even(size: tuple[int, int], short: int, expected: tuple[int, int]) -> None:
    assert sides(*size, short) == expected


@pytest.mark.parametrize(("crop", "stride"), [(713, 476), (593, 396), (473, 316), (33, 22), (64, 43)])
def test_windows_overlap_by_a_third(crop: int, stride: int) -> None:
    assert protocol(720, crop).stride == (stride, stride)
    for side in (crop, crop + 1, crop + stride, crop + stride + 1, 1920):
        assert len(windows(crop, side, (crop, crop), (stride, stride))) == -(-(side - crop) // stride) + 1


def test_the_published_values_are_the_defaults() -> None:
    found = inferences(Evaluation.model_validate({"protocol": "mseg"}))
    assert [each.base_size for each in found if isinstance(each, MSegInference)] == [360, 720, 1080]
    assert {(each.crop, each.stride, each.flip, each.scale) for each in found} == {((713, 713), (476, 476), True, None)}
    config = Evaluation.model_validate({"protocol": "mseg"})
    assert one_inference(config) == found[1]
    assert inferences(Evaluation()) == (Inference(),)
    again = Evaluation.model_validate(config.model_dump(mode="json"))  # as results store it
    assert again == config


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"protocol": "mseg", "stride": [512, 512]}, "`stride` cannot be chosen"),
        ({"protocol": "mseg", "scale": [2048, 512]}, "`scale` cannot be chosen"),
        ({"protocol": "mseg", "flip": False}, "`flip` cannot be chosen"),
        ({"protocol": "mseg", "mode": "whole"}, "`mode` cannot be chosen"),
        ({"protocol": "mseg", "scales": [1, 1]}, "`scales` has one twice"),
        ({"protocol": "mseg", "base_sizes": []}, "base_sizes"),
        ({"protocol": "mseg", "scales": [1, 0.001]}, "of `base_sizes` 360 the scale 0.001 leaves no pixel"),
        ({"protocol": "mseg", "crop": "big"}, "crop"),
        ({"base_sizes": [360]}, "`base_sizes` is of `protocol: mseg`"),
        ({"scales": [0.5, 1]}, "`scales` is of `protocol: mseg`"),
    ],
)
def test_keys_of_the_other_protocol_are_refused(keys: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Evaluation.model_validate(keys)


def test_with_soft_no_map_of_the_model_s_classes_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside the scores of one window there are maps of the test set's classes alone, in float32."""
    made: list[Tensor] = []
    zeros = torch.zeros

    def watched(*size: int, **options: object) -> Tensor:
        made.append(zeros(*size, **options))  # type: ignore[call-overload]
        return made[-1]

    monkeypatch.setattr(multiscale.torch, "zeros", watched)
    image = np.random.default_rng(1).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    for scales in ((1.0,), MS):
        made.clear()
        predict(
            Normalised(Logits(194), MEAN, STD),
            image,
            protocol(60, 33, scales),
            device=CPU,
            target=target(194, "soft"),
        )
        largest = max(scales) * 60 * max(scales) * 80
        maps_made = [part for part in made if part.ndim == 3]
        assert {part.dtype for part in maps_made} == {torch.float32}
        assert {len(part) for part in maps_made} == {65}
        assert max(part[0].numel() for part in maps_made) <= largest
        assert len(maps_made) == len(scales) + (len(scales) > 1)  # one of each scale, and the sum


def test_each_window_is_seen_once_and_mirrored_once() -> None:
    model = ColourVotes(4)
    predict(
        Normalised(model, (0, 0, 0), (1, 1, 1), are_votes=True),
        class_image(np.ones((40, 80))),
        protocol(40, 33),
        device=CPU,
    )
    assert model.seen == [(1, 3, 33, 33)] * 2 * 2 * 4


def test_pictures_beside_it_are_those_of_windows_at_the_base_size() -> None:
    image = np.random.default_rng(8).integers(0, 256, (41, 50, 3)).astype(np.uint8)
    model = Normalised(Decoder(), (0, 0, 0), (1, 1, 1))
    found = extra_pictures(model, image, protocol(30, 24), device=CPU)["maskige"]
    assert found.shape == (60, 74, 3)
    alike = extra_pictures(model, image, Inference("slide", (24, 24), (16, 16), (37, 30), flip=True), device=CPU)
    np.testing.assert_array_equal(found, alike["maskige"])


def test_scores_are_resized_a_few_classes_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    counts: list[int] = []
    interpolate: Callable[..., Tensor] = maps.F.interpolate

    def watched(chunk: Tensor, size: tuple[int, int], **options: object) -> Tensor:
        counts.append(chunk.shape[1])
        return interpolate(chunk, size, **options)

    monkeypatch.setattr(maps.F, "interpolate", watched)
    image = np.random.default_rng(1).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    predict(Normalised(Shares(150), MEAN, STD, True), image, protocol(40, 41), device=CPU)
    assert max(counts) <= 23 and sum(counts) == 150

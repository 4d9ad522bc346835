"""`gss benchmark` measures what an experiment does, from its configuration alone; no test looks at a time."""

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
import yaml
from torch import nn

from gss.benchmark.stopwatch import Phase, Stopwatch

EXPERIMENT = {
    "data": {
        "root": "nowhere",
        "classes": ["one", "two", "three"],
        "splits": {split: {"images": split, "labels": split} for split in ("train", "val")},
    },
    "augment": {"base_scale": [64, 48], "crop": [32, 32]},
    "tokenizer": {
        "vocab_size": 16,
        "n_hid": 8,
        "n_init": 8,
        "blocks_per_group": 1,
        "train": {"batch_size": 2, "crop": 32},
    },
    "latent_prior": {
        "backbone": {"name": "test_resnet"},
        "channels": 8,
        "seg_channels": 8,
        "cls_channels": 8,
        "num_heads": 2,
        "training": {"batch_size": 4, "accumulation": 2},
    },
    "posterior": {"variant": "conv", "channels": 8, "training": {"batch_size": 2}},
}


def run(folder: Path, *words: str, limit_kib: str = "unlimited") -> subprocess.CompletedProcess[str]:
    (folder / "small.yaml").write_text(yaml.safe_dump(EXPERIMENT))
    command = [sys.executable, "-m", "gss", "benchmark", "small.yaml", "--images", "1", "-o", "speed.json", *words]
    return subprocess.run(
        ["sh", "-c", f'ulimit -d {limit_kib}; exec "$@"', "sh", *command],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
def test_a_configuration_is_enough(tmp_path: Path) -> None:
    done = run(tmp_path)
    assert done.returncode == 0, done.stderr
    content = json.loads((tmp_path / "speed.json").read_text())
    assert "made up, 64 x 48" in content["images"]
    sections = {
        section["title"]: {row["name"].strip(): row for row in section["rows"]} for section in content["sections"]
    }
    assert list(sections) == [
        "data loading, batch of 4, one core",
        "tokenizer, batch of 2, fp32",
        "reconstruction",
        "latent prior, batch of 4, fp32",
        "posterior, batch of 2, fp32",
        "prediction, GSS-FF",
        "prediction, GSS-FT",
        "evaluation, GSS-FF",
        "evaluation, GSS-FT",
    ]
    prior, image = sections["latent prior, batch of 4, fp32"], sections["prediction, GSS-FT"]
    assert {"tokens of the label", "forward", "backward", "optimiser step"} <= set(prior)
    assert {"crops", "forward", "backward", "optimiser step"} <= set(sections["tokenizer, batch of 2, fp32"])
    assert {"tokens of the label", "decode", "paint, nearest colour, count"} <= set(sections["reconstruction"])
    assert {"tokens of the image", "decode", "X^-1: scores of the classes", "resize, normalise, argmax"} <= set(image)
    whole = prior["step, the batch at hand"]
    assert whole["gmac"] == pytest.approx(sum(row["gmac"] for row in list(prior.values())[1:-1]))
    assert 0 < whole["peak_share"] < 1
    assert whole["images_per_s"] == pytest.approx(4 / whole["seconds"])
    assert 0 <= prior["step, with data loading"]["waiting"] < 1
    assert (tmp_path / "speed.png").read_bytes().startswith(b"\x89PNG")
    assert not (tmp_path / "results").exists(), "a measurement leaves nothing but its two files"
    for title in sections:
        assert title[1:] in done.stdout


@pytest.mark.slow
def test_what_does_not_fit_is_refused_with_the_keys_that_need_less(tmp_path: Path) -> None:
    done = run(tmp_path, "augment.crop=[16384,16384]", limit_kib="2000000")  # a single image, before any network
    assert done.returncode == 2, done.stderr
    assert "does not fit into the memory" in done.stderr
    assert "latent_prior.training.accumulation" in done.stderr and "augment.crop (now [16384, 16384])" in done.stderr
    assert "Traceback" not in done.stderr


def laps_of_two_phases() -> dict[str, Phase]:
    """A large phase around a small one."""
    watch = Stopwatch(torch.device("cpu"))
    layer = nn.Linear(64, 32, bias=False)
    watch.around(layer, "forward", "inner")
    for _ in watch.laps(3):
        watch.enter("outer")
        torch.ones(2**24) @ torch.ones(2**24, 1)  # 128 MiB that are gone when the inner phase begins
        layer(torch.ones(10, 64))
        layer(torch.ones(5, 64))
    return watch.phases


def test_a_lap_is_divided_into_phases() -> None:
    # A process of its own: this one may have memory left of other tests, which would be used again unseen.
    # What the parent holds is nothing to it, although `ru_maxrss` begins there.
    held = torch.ones(2**27)
    done = subprocess.run([sys.executable, __file__], check=True, stdout=subprocess.PIPE, text=True)
    del held
    outer, inner = (Phase(**phase) for phase in json.loads(done.stdout))
    assert len(outer.seconds) == len(inner.seconds) == 3
    assert min(outer.seconds) > 0 and min(inner.seconds) > 0
    assert (outer.macs, inner.macs) == (2**24, 15 * 64 * 32), "counted in one lap, not in all"
    assert outer.memory > 120 * 2**20 > 60 * 2**20 > inner.memory


def test_attention_is_counted_on_cpus_and_in_inference_mode() -> None:
    watch = Stopwatch(torch.device("cpu"))
    query = torch.randn(2, 4, 50, 16, requires_grad=True)
    linear = nn.Linear(16, 8)
    for _ in watch.laps(1):
        watch.enter("forward")
        result = nn.functional.scaled_dot_product_attention(query, query, query)
        watch.enter("backward")
        result.sum().backward()
        watch.enter("inference")
        with torch.inference_mode():
            linear(query)
    assert watch.phases["forward"].macs == 2 * 2 * 4 * 50 * 50 * 16
    assert watch.phases["backward"].macs == 2.5 * watch.phases["forward"].macs
    assert watch.phases["inference"].macs == 2 * 4 * 50 * 16 * 8


if __name__ == "__main__":
    phases = laps_of_two_phases()
    print(json.dumps([asdict(phases["outer"]), asdict(phases["inner"])]))

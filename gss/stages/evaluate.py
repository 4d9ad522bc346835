"""Stage 8: the final figures of GSS-FF and GSS-FT."""

import torch

import gss
from gss.data.images import read_image, read_label
from gss.evaluate.pictures import panel
from gss.evaluate.run import evaluate_pairs
from gss.evaluate.write import write_evaluation
from gss.files import sha256_file
from gss.modelfile import load_model
from gss.report.plots import iou_bars
from gss.stages.assemble import load_with_tokenizer
from gss.stages.run import Run
from gss.train.distributed import World


def evaluate(run: Run, world: World, model_name: str, split: str) -> None:
    """Measure `gss_ff.pth` or `gss_ft.pth` on a split; files of `evaluation/<model>/<split>/`."""
    raise SystemExit

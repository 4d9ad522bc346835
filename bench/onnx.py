"""An ONNX file against torch, on the images of a split: equal pixels, scores, mIoU and time of both."""

import argparse
import json
import time
from pathlib import Path

import cv2
import numpy as np
import onnxruntime
import torch

from gss.data.images import read_image
from gss.evaluate.metrics import confusion, scores
from gss.progress import Progress
from gss.use.predictor import load


def main() -> None:
    grammar = argparse.ArgumentParser(description=__doc__)
    grammar.add_argument("model", type=Path, help="gss_ft.pth or gss_ff.pth")
    grammar.add_argument("onnx", type=Path)
    grammar.add_argument("images", type=Path, help="folder of images")
    grammar.add_argument("labels", type=Path, help="folder of labels of the same names, .png; ids as in the model")
    grammar.add_argument("--threads", type=int, default=1)
    given = grammar.parse_args()
    torch.set_num_threads(given.threads)
    cv2.setNumThreads(given.threads)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = given.threads
    session = onnxruntime.InferenceSession(given.onnx, options, providers=["CPUExecutionProvider"])
    predictor = load(given.model)
    classes = len(predictor.classes)
    assert json.loads(session.get_modelmeta().custom_metadata_map["classes"]) == list(predictor.classes)

    files = sorted(given.images.iterdir())
    equal = pixels = 0
    times: list[tuple[float, float]] = []  # CPU seconds of torch and of onnxruntime: other jobs share the cores
    totals = torch.zeros(2, classes, classes, dtype=torch.int64)
    progress = Progress("compare", len(files), "img")
    for done, file in enumerate(files, 1):
        image = read_image(file)
        label = torch.from_numpy(cv2.imread(str(given.labels / f"{file.stem}.png"), cv2.IMREAD_UNCHANGED))
        label[label >= classes] = 255
        start = time.process_time()
        own = predictor.predict(image)
        middle = time.process_time()
        (theirs,) = session.run(["ids"], {"image": image[None]})
        times.append((middle - start, time.process_time() - middle))
        equal += int((own == theirs[0]).sum())
        pixels += own.size
        for total, prediction in zip(totals, (own, theirs[0]), strict=True):
            total += confusion(torch.from_numpy(prediction), label, classes)
        progress.show(done)
    torch_s, onnx_s = np.median(np.array(times[2:]), axis=0)
    miou = [scores(total.numpy()).mIoU for total in totals]
    print(f"{len(files)} images, {pixels - equal} of {pixels} pixels differ: {100 * equal / pixels:.5f} % equal")
    print(f"mIoU torch {100 * miou[0]:.4f}, onnxruntime {100 * miou[1]:.4f}")
    print(
        f"CPU seconds per image (median), {given.threads} thread: torch {torch_s:.3f}, onnxruntime {onnx_s:.3f}, "
        f"ratio torch / onnxruntime {torch_s / onnx_s:.2f}; torch {torch.__version__}, onnxruntime "
        f"{onnxruntime.__version__}"
    )


if __name__ == "__main__":
    main()

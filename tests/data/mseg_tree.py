"""MSeg's thirteen data sets as they lie on a disk, tiny and random: photographs and the labels they are published with.

What every label means is kept beside it, drawn before it is written in the way of its set.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw

from gss.config import load_experiment, runs_of, shipped
from gss.data.mseg.sets import SETS
from gss.files import read_table
from tests.mseg_tables import names

SIZE = 40, 56
TRAINED = ("ade20k-150", "bdd", "cityscapes-19", "coco-panoptic-133", "idd-39", "mapillary-public65", "sunrgbd-37")
TESTED = ("voc2012", "pascal-context-60", "camvid-11", "wilddash-19", "kitti-19", "scannet-20")
RAW = {
    "ade20k-150": "ade20k-151",
    "cityscapes-19": "cityscapes-34",
    "coco-panoptic-133": "coco-panoptic-201",
    "idd-39": "idd-40",
    "mapillary-public65": "mapillary-public66",
    "sunrgbd-37": "sunrgbd-38",
    "pascal-context-60": "pascal-context-460",
    "camvid-11": "camvid-32",
    "wilddash-19": "wilddash-34",
    "kitti-19": "kitti-34",
    "scannet-20": "scannet-41",
}
SPLITS = {"train": 3, "val": 2}


def listed(name: str) -> list[str]:
    """The shipped list of a set's images."""
    return Path(str(shipped("lists", f"mseg/{name}"))).read_text().split()


@dataclass
class Tree:
    """The sets below a folder.

    Args:
        root: the folder.
        names: which of them.
        pairs: of each split; of those with a shipped list its first images and one that it does not name.

    Attributes:
        expected: file of a label that is to be made -> its ids.
        photographs: files.
    """

    root: Path
    names: tuple[str, ...] = (*TRAINED, *TESTED)
    pairs: dict[str, int] = field(default_factory=lambda: dict(SPLITS))
    expected: dict[Path, np.ndarray] = field(default_factory=dict)
    photographs: list[Path] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(0)
        for name in self.names:
            getattr(self, "_" + name.replace("-", "_"))()

    # ---- what is drawn

    def label(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Raw ids [H, W] in blocks, and the ids of the set, by equal names."""
        raw, classes = names(RAW.get(name, name)), names(name)
        rest = classes.index("background") if name == "pascal-context-60" else 255
        table = np.array([classes.index(each) if each in classes else rest for each in raw])
        drawn = self.rng.integers(0, len(raw), (SIZE[0] // 8, SIZE[1] // 8))
        drawn = drawn.repeat(8, 0).repeat(8, 1)
        return drawn, table[drawn]

    def photograph(self, path: str) -> None:
        coarse = self.rng.integers(0, 256, (5, 7, 3), dtype=np.uint8)
        self.photographs.append(self.root / path)
        self._save(self.root / path, cv2.resize(coarse, SIZE[::-1], interpolation=cv2.INTER_CUBIC))

    def _save(self, path: Path, pixels: np.ndarray) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)

    def _pair(self, name: str, image: str, raw: str, made: str, dtype: type = np.uint8) -> None:
        drawn, ids = self.label(name)
        self.photograph(image)
        self._save(self.root / raw, drawn.astype(dtype))
        self.expected[self.root / made] = ids

    def _stems(self, name: str) -> list[str]:
        """The first images of a list, and one that it does not name."""
        stems = listed(name)
        *_, last = stems[0].rpartition("/")
        return [*stems[: self.pairs["val"]], stems[0].removesuffix(last) + "x" + last[1:]]

    # ---- the sets

    def _ade20k_150(self) -> None:
        for split, folder in (("train", "training"), ("val", "validation")):
            for number in range(self.pairs[split]):
                stem, at = f"ADE_{split}_{number + 1:08}", "ADE20K/ADEChallengeData2016"
                made = f"{at}/annotations_semseg150/{folder}/{stem}.png"
                raw = f"{at}/annotations/{folder}/{stem}.png"
                self._pair("ade20k-150", f"{at}/images/{folder}/{stem}.jpg", raw, made)

    def _bdd(self) -> None:
        for split, count in self.pairs.items():
            for number in range(count):
                stem = f"{'abcdef'[number]}{split}-{number:08}"
                self.photograph(f"BDD/bdd100k/seg/images/{split}/{stem}.jpg")
                path = self.root / f"BDD/bdd100k/seg/labels/{split}/{stem}_train_id.png"
                ids = self.label("bdd")[0].astype(np.uint8)
                ids[:4] = 255
                self._save(path, ids)
                self.expected[path] = ids

    def _cityscapes_19(self) -> None:
        for split, count in self.pairs.items():
            for number in range(count):
                city = ("aachen", "bochum")[number % 2]
                stem = f"{split}/{city}/{city}_{number:06}_000019"
                raw, made = (f"Cityscapes/{at}/{stem}_gtFine_labelIds.png" for at in ("gtFine", "gtFine_19cls"))
                self._pair("cityscapes-19", f"Cityscapes/leftImg8bit/{stem}_leftImg8bit.png", raw, made)
                self._save(self.root / f"Cityscapes/gtFine/{stem}_gtFine_color.png", np.zeros((*SIZE, 3), np.uint8))
                self.polygons(f"Cityscapes/gtFine/{stem}_gtFine_polygons.json", ["rider"] * 3, with_ids=False)

    def _idd_39(self) -> None:
        classes, raw = names("idd-39"), names("idd-40")
        for split, count in self.pairs.items():
            for number in range(count):
                stem = f"{split}/{number}/{number:06}"
                self.photograph(f"IDD/IDD_Segmentation/leftImg8bit/{stem}_leftImg8bit.png")
                labels = [str(each) for each in self.rng.choice(raw, 6)]
                things = self.polygons(
                    f"IDD/IDD_Segmentation/gtFine/{stem}_gtFine_polygons.json", [*labels, "cargroup"]
                )
                picture = Image.new("L", SIZE[::-1], 255)
                for thing in things:
                    label = thing["label"].replace("cargroup", "car")
                    if not thing["deleted"] and len(thing["polygon"]) > 2:
                        fill = classes.index(label) if label in classes else 255
                        ImageDraw.Draw(picture).polygon([tuple(point) for point in thing["polygon"]], fill=fill)
                made = self.root / f"IDD/IDD_Segmentation/gtFine39/{stem}_gtFine_labelids.png"
                self.expected[made] = np.asarray(picture)

    def polygons(self, path: str, labels: list[str], with_ids: bool = True) -> list[dict]:
        """Triangles and quadrangles; one of two points, one that is deleted, one of no height."""
        things = []
        for number, label in enumerate(labels):
            corners = 3 + number % 2 if number != 1 else 2
            points = [[int(self.rng.integers(SIZE[1])), int(self.rng.integers(SIZE[0]))] for _ in range(corners)]
            if number == 2:
                points = [[5, 7], [20, 7], [11, 7]]
            thing = {"label": label, "polygon": points, "deleted": int(number == 3)}
            things.append({**thing, "id": 100 + number} if with_ids else thing)
        content = {"imgHeight": SIZE[0], "imgWidth": SIZE[1], "objects": things}
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(content))
        return things

    def _coco_panoptic_133(self) -> None:
        classes, raw = names("coco-panoptic-133"), names("coco-panoptic-201")
        categories = [index for index, name in enumerate(raw) if name != "unlabeled"]
        for split, count in self.pairs.items():
            annotations = []
            for number in range(count):
                stem = f"{number * 139 + 9:012}"
                self.photograph(f"COCOPanoptic/images/{split}2017/{stem}.jpg")
                segments = {int(each): int(self.rng.choice(categories)) for each in self.rng.integers(1, 1 << 24, 5)}
                drawn = self.rng.choice([0, *segments], (5, 7)).repeat(8, 0).repeat(8, 1)
                drawn[-8:, -40:] = np.repeat([*segments], 8)
                coded = np.stack([drawn & 255, drawn >> 8 & 255, drawn >> 16], -1).astype(np.uint8)
                self._save(self.root / f"COCOPanoptic/annotations/panoptic_{split}2017/{stem}.png", coded)
                infos = [{"id": each, "category_id": kind, "area": 1} for each, kind in segments.items()]
                annotations.append({"segments_info": infos, "file_name": f"{stem}.png", "image_id": number})
                ids = np.full(SIZE, 255)
                for each, kind in segments.items():
                    ids[drawn == each] = classes.index(raw[kind])
                self.expected[self.root / f"COCOPanoptic/semantic_annotations133/{split}2017/{stem}.png"] = ids
            path = self.root / f"COCOPanoptic/annotations/panoptic_{split}2017.json"
            path.write_text(json.dumps({"annotations": annotations, "categories": [{"id": 1, "name": "person"}]}))

    def _mapillary_public65(self) -> None:
        for split, folder in (("train", "training"), ("val", "validation")):
            for number in range(self.pairs[split]):
                stem, at = f"_{split}{number}_x-", "MapillaryVistasPublic"
                self.photograph(f"{at}/{folder}/images/{stem}.jpg")
                drawn, ids = self.label("mapillary-public65")
                self._save(self.root / f"{at}/{folder}/labels/{stem}.png", self._paint("mapillary-public66", drawn))
                self._save(self.root / f"{at}/{folder}/instances/{stem}.png", (drawn * 256).astype(np.uint16))
                self.expected[self.root / f"{at}/{folder}_semseg65/labels/{stem}.png"] = ids

    def _paint(self, name: str, drawn: np.ndarray) -> np.ndarray:
        table = read_table(Path(str(shipped("classes", f"mseg/{name}"))))
        return table[["r", "g", "b"]].to_numpy(np.uint8)[drawn]

    def _sunrgbd_37(self) -> None:
        train = [f"img-{number + 1:06}" for number in range(self.pairs["train"])]
        for split, stems in (("train", train), ("test", self._stems("sunrgbd-37"))):
            for stem in stems:
                stem = stem.replace("xmg", "img-9")[:10] if stem.startswith("x") else stem
                label = f"{split}/00{stem.removeprefix('img-')}.png"
                raw, made = (f"SUNRGBD/{at}/{label}" for at in ("label38", "semseg-label37"))
                self._pair("sunrgbd-37", f"SUNRGBD/image/{split}/{stem}.jpg", raw, made)

    def _voc2012(self) -> None:
        for stem in self._stems("voc2012"):
            self.photograph(f"PASCAL_VOC_2012/JPEGImages/{stem}.jpg")
            path = self.root / f"PASCAL_VOC_2012/SegmentationClassAug/{stem}.png"
            ids = self.label("voc2012")[0].astype(np.uint8)
            self._save(path, ids)
            self.expected[path] = ids

    def _pascal_context_60(self) -> None:
        for stem in self._stems("pascal-context-60"):
            raw, made = (f"PASCAL_Context/Segmentation_GT_{count}cls/{stem}.png" for count in (460, 60))
            self._pair("pascal-context-60", f"PASCAL_Context/JPEGImages/{stem}.jpg", raw, made, np.uint16)

    def _camvid_11(self) -> None:
        for stem in self._stems("camvid-11"):
            self.photograph(f"Camvid/701_StillsRaw_full/{stem}.png")
            drawn, ids = self.label("camvid-11")
            self._save(self.root / f"Camvid/Labels32-RGB/{stem}_L.png", self._paint("camvid-32", drawn))
            self.expected[self.root / f"Camvid/semseg11/{stem}_L.png"] = ids

    def _wilddash_19(self) -> None:
        for stem in self._stems("wilddash-19"):
            raw, made = (f"WildDash/{at}/{stem}_100000_labelIds.png" for at in ("wd_val_01", "wd_val_19class"))
            self._pair("wilddash-19", f"WildDash/wd_val_01/{stem}_100000.png", raw, made)

    def _kitti_19(self) -> None:
        for stem in self._stems("kitti-19"):
            raw, made = (f"KITTI/training/{at}/{stem}.png" for at in ("semantic", "label19"))
            self._pair("kitti-19", f"KITTI/training/image_2/{stem}.png", raw, made)

    def _scannet_20(self) -> None:
        for stem in self._stems("scannet-20"):
            at = f"ScanNet/scannet_frames_25k/{stem}"
            raw, made = (f"{at.replace('/color/', f'/{folder}/')}.png" for folder in ("label", "label20"))
            self._pair("scannet-20", f"{at}.jpg", raw, made)
            self._save(self.root / f"{at.replace('/color/', '/depth/')}.png", np.zeros(SIZE, np.uint16))

    # ---- relabelled segments

    def relabel(self, name: str) -> dict[Path, np.ndarray]:
        """Write records of two segments of each label of a training set; returns what is expected of the relabelled."""
        records: dict[tuple[str, str, str], list[str]] = {}
        found = {}
        after = names(f"{name}-relabeled")
        table = read_table(Path(str(shipped("taxonomies", "mseg"))), separator="\t")
        cells = zip(table[name], table["universal"], strict=True)
        universal = {each.strip(): to for cell, to in cells for each in cell.strip("{}").split(",")}
        step = [after.index(universal[each]) if universal[each] in after else 255 for each in names(name)]
        of_set = {path: ids for path, ids in self.expected.items() if (self.root / SETS[name].folder) in path.parents}
        for path, ids in of_set.items():
            label = np.array([*step, *[255] * (256 - len(step))])[ids]
            split = "train" if "/train" in str(path) else "val"
            for record, inside in self._segments(name, path, ids, split):
                before = label[inside][0]
                new = int(self.rng.choice([*range(len(after)), 255]))
                called = [after[each] if each < 255 else "unlabeled" for each in (before, new)]
                records.setdefault((split, *called), []).append(record)
                label[inside] = new
            at = str(path).replace("annotations_semseg150", "annotations_semseg150_relabeled")
            for one, other in (
                ("/seg/", "/seg_relabeled/"),
                ("gtFine_19cls", "gtFine_19cls_relabeled"),
                ("semantic_annotations133", "semantic_relabeled133"),
                ("gtFine39", "gtFine39_relabeled"),
                ("_semseg65", "_semseg65_relabeled"),
                ("semseg-label37", "semseg-relabeled37"),
            ):
                at = at.replace(one, other)
            found[Path(at)] = label
        self.write_records(name, records)
        return found

    def write_records(self, name: str, records: dict[tuple[str, str, str], list[str]]) -> None:
        """The published form: a list of calls for each set, and a list of names for each of them."""
        lists, calls = self.root / "mseg-api/mseg/relabeled_data", []
        for number, ((split, before, after), lines) in enumerate(records.items()):
            file = lists / name / f"{number}.txt"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text("\n".join(f"{line}.jpg" for line in lines))
            calls.append(f"\tDatasetClassUpdateRecord('x', '{split}', \t'{before}', '{after}', '{name}/{number}.txt'),")
        code = self.root / "mseg-api/mseg/label_preparation/dataset_update_records.py"
        code.parent.mkdir(parents=True, exist_ok=True)
        variable = name.split("-")[0].replace("coco", "cocop")
        with code.open("a") as out:
            print("from nowhere import nothing", f"{variable}_update_records = [", *calls, "]", sep="\n", file=out)

    def _segments(self, name: str, path: Path, ids: np.ndarray, split: str) -> list[tuple[str, np.ndarray]]:
        """Names of two segments that do not overlap, and their pixels."""
        stem, folder = path.stem, path.parent.name
        if name == "ade20k-150":
            blue = np.arange(35).reshape(5, 7).repeat(16, 0).repeat(16, 1).astype(np.uint8)
            full = self.root / f"ADE20K/ADE20K_2016_07_26/images/x/{stem}_seg.png"
            self._save(full, np.stack([blue * 3, blue * 5, blue], -1))
            return [(f"{stem}_{each}", blue[::2, ::2] == each) for each in (0, 12)]
        if name in ("bdd", "sunrgbd-37"):
            stem = stem.removesuffix("_train_id").removeprefix("00")
            stem = f"img-{stem}" if name == "sunrgbd-37" else stem
            return [(f"{stem}_{each}", ids == each) for each in sorted(set(ids[ids < 255].tolist()))[:2]]
        if name == "mapillary-public65":
            drawn = np.asarray(Image.open(str(path).replace("_semseg65/labels", "/instances")))
            return [(f"mapillary_{stem}_{each}", drawn == each) for each in np.unique(drawn)[:2]]
        if name == "coco-panoptic-133":
            coded = self.root / f"COCOPanoptic/annotations/panoptic_{split}2017/{stem}.png"
            drawn = np.asarray(Image.open(coded)).astype(int) @ (1, 256, 65536)
            return [(f"{stem}_{each}", drawn == each) for each in np.unique(drawn[drawn > 0])[:2]]
        image = f"{stem.partition('_gtFine')[0]}"
        at = str(path.parent).replace("gtFine_19cls", "gtFine").replace("gtFine39", "gtFine")
        things = json.loads(Path(f"{at}/{image}_gtFine_polygons.json").read_text())["objects"]
        segments = []
        for number in (0, 2):  # the latter has no height
            picture = Image.new("L", SIZE[::-1])
            points = [tuple(point) for point in things[number]["polygon"]]
            draw = ImageDraw.Draw(picture)
            if number == 2:
                draw.line([points[0], points[1]], fill=1)
            else:
                draw.polygon(points, outline=1, fill=1)
            segment = things[number].get("id", number)
            segments.append((f"seq{folder}_{image}_leftImg8bit_{segment}", np.asarray(picture) > 0))
        return segments

    # ---- an experiment

    def lists(self) -> None:
        """Write lists of those images of the shipped lists that are here, in `lists` beside the folder of the sets; and
        of the other images of the test sets, in the form and place of MSeg."""
        for name in (*TESTED, "sunrgbd-37"):
            path = self.root.parent / "lists" / f"{name}.txt"
            path.parent.mkdir(exist_ok=True)
            path.write_text("\n".join(listed(name)[: self.pairs["val"]]))
        for name in TESTED:
            folder = self.root / SETS[name].folder
            files = [path.relative_to(folder) for path in self.photographs if folder in path.parents]
            path = self.root / f"mseg-api/mseg/dataset_lists/{name}/list/train.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("".join(f"{file} labels/of/it.png\n" for file in files if "x" in file.stem[:2]))

    def experiment(self, base: str) -> dict:
        """The data and test sets of one of MSeg's experiments, of which the pairs of this tree alone count.

        Args:
            base: its name in the project of the working directory.
        """
        experiment = load_experiment(runs_of(base)[0])
        data = experiment.data.model_dump(mode="json", exclude_defaults=True)
        sets = experiment.evaluation.model_dump(mode="json", exclude_defaults=True).get("sets", {})
        for source in (data, *data.get("sources", ()), *sets.values()):
            for split in source["splits"].values():
                if split.get("list", "").startswith("mseg/"):
                    split["list"] = split["list"].replace("mseg/", "lists/") + ".txt"
        return {"recipe": "pixel", "data": data, "evaluation": {"sets": sets}}

"""MSeg's thirteen data sets: where their labels lie below one folder, and how these are published.

Source: layout, lists and ways of the labels of mseg-dataset/mseg-api; numbers of images of the MSeg paper.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

RELABELLED = "-relabeled"  # behind the name of a set whose segments were looked through


@dataclass(frozen=True)
class Part:
    """Folders of the labels of one split, below that of the set.

    Args:
        raw: as published; empty: as `semseg`.
        semseg: with ids 0, 1, ... and 255.
        labels: how many there are.
        relabelled: with the ids of the relabelled classes; empty: none.
    """

    raw: str
    semseg: str
    labels: int
    relabelled: str = ""


@dataclass(frozen=True)
class LabelSet:
    """One of the sets.

    Args:
        folder: below that of all sets.
        raw_classes: shipped list of the classes of the raw labels, some of which are those of the set.
        kind: what raw labels are: ids, colours, COCO's panoptic PNG and JSON, polygons in JSON; `given`: those of
            the set, of which nothing has to be made.
        parts: by split; `all` where one folder has the images of several.
        source: where one gets it.
        raw_ending, ending: ends of the names of raw labels and of the others, without which they are equal.
        rest: the class of raw classes that are none of the set; empty: they are ignored.
        folders: the innermost folders of raw labels and of the others, where these lie beside each other; empty: any.
        segments: what says where the segments are that were relabelled, see `gss.data.mseg.relabel`.
        is_strict: all pixels of a relabelled segment have the class that it had before.
    """

    folder: str
    raw_classes: str
    kind: Literal["ids", "colours", "panoptic", "polygons", "given"]
    parts: Mapping[str, Part]
    source: str
    raw_ending: str = ".png"
    ending: str = ".png"
    rest: str = ""
    folders: tuple[str, str] = ("", "")
    segments: Literal["blue", "panoptic", "semseg", "instances", "polygons"] | None = None
    is_strict: bool = True


_IDS = "_gtFine_labelIds.png"

SETS = {
    "ade20k-150": LabelSet(
        "ADE20K/ADEChallengeData2016",
        "ade20k-151",
        "ids",
        {
            split: Part(
                f"annotations/{folder}",
                f"annotations_semseg150/{folder}",
                labels,
                f"annotations_semseg150_relabeled/{folder}",
            )
            for split, folder, labels in (("train", "training", 20210), ("val", "validation", 2000))
        },
        "ADEChallengeData2016.zip of the scene parsing benchmark, sceneparsing.csail.mit.edu",
        segments="blue",
        is_strict=False,
    ),
    "bdd": LabelSet(
        "BDD/bdd100k",
        "bdd",
        "given",
        {
            split: Part("", f"seg/labels/{split}", labels, f"seg_relabeled/labels/{split}")
            for split, labels in (("train", 7000), ("val", 1000))
        },
        "BDD100K's semantic segmentation, bdd100k_seg.zip, bdd-data.berkeley.edu",
        raw_ending="_train_id.png",
        ending="_train_id.png",
        segments="semseg",
    ),
    "cityscapes-19": LabelSet(
        "Cityscapes",
        "cityscapes-34",
        "ids",
        {
            split: Part(f"gtFine/{split}", f"gtFine_19cls/{split}", labels, f"gtFine_19cls_relabeled/{split}")
            for split, labels in (("train", 2975), ("val", 500))
        },
        "gtFine_trainvaltest.zip and leftImg8bit_trainvaltest.zip, cityscapes-dataset.com",
        raw_ending=_IDS,
        ending=_IDS,
        segments="polygons",
        is_strict=False,
    ),
    "coco-panoptic-133": LabelSet(
        "COCOPanoptic",
        "coco-panoptic-201",
        "panoptic",
        {
            split: Part(
                f"annotations/panoptic_{split}2017",
                f"semantic_annotations133/{split}2017",
                labels,
                f"semantic_relabeled133/{split}2017",
            )
            for split, labels in (("train", 118287), ("val", 5000))
        },
        "panoptic_annotations_trainval2017.zip (its zip files unpacked, too), train2017.zip and val2017.zip, "
        "cocodataset.org",
        segments="panoptic",
    ),
    "idd-39": LabelSet(
        "IDD/IDD_Segmentation",
        "idd-40",
        "polygons",
        {
            split: Part(f"gtFine/{split}", f"gtFine39/{split}", labels, f"gtFine39_relabeled/{split}")
            for split, labels in (("train", 6993), ("val", 981))
        },
        "IDD 20k part I, idd.insaan.iiit.ac.in",
        raw_ending="_gtFine_polygons.json",
        ending="_gtFine_labelids.png",
        segments="polygons",
        is_strict=False,
    ),
    "mapillary-public65": LabelSet(
        "MapillaryVistasPublic",
        "mapillary-public66",
        "colours",
        {
            split: Part(f"{folder}/labels", f"{folder}_semseg65/labels", labels, f"{folder}_semseg65_relabeled/labels")
            for split, folder, labels in (("train", "training", 18000), ("val", "validation", 2000))
        },
        "Mapillary Vistas v1.1 (of research use), mapillary.com/dataset/vistas",
        segments="instances",
    ),
    "sunrgbd-37": LabelSet(
        "SUNRGBD",
        "sunrgbd-38",
        "ids",
        {
            split: Part(f"label38/{folder}", f"semseg-label37/{folder}", labels, f"semseg-relabeled37/{folder}")
            for split, folder, labels in (("train", "train", 5285), ("val", "test", 5050))
        },
        "images and 37 class labels of SUN RGB-D, rgbd.cs.princeton.edu and github.com/ankurhanda/sunrgbd-meta-data",
        segments="semseg",
    ),
    "voc2012": LabelSet(
        "PASCAL_VOC_2012",
        "voc2012",
        "given",
        {"all": Part("", "SegmentationClassAug", 12031)},
        "VOCtrainval_11-May-2012.tar, host.robots.ox.ac.uk, and SegmentationClassAug with the labels of SBD",
    ),
    "pascal-context-60": LabelSet(
        "PASCAL_Context",
        "pascal-context-460",
        "ids",
        {"all": Part("Segmentation_GT_460cls", "Segmentation_GT_60cls", 10103)},
        "images of VOC 2010, host.robots.ox.ac.uk, and trainval.tar.gz of PASCAL Context, cs.stanford.edu/~roozbeh, of "
        "whose .mat files the LabelMap is to be saved as 16-bit PNG",
        rest="background",
    ),
    "camvid-11": LabelSet(
        "Camvid",
        "camvid-32",
        "colours",
        {"all": Part("Labels32-RGB", "semseg11", 701)},
        "701_StillsRaw_full.zip and LabeledApproved_full.zip, mi.eng.cam.ac.uk/research/projects/VideoRec/CamVid",
        raw_ending="_L.png",
        ending="_L.png",
    ),
    "wilddash-19": LabelSet(
        "WildDash",
        "wilddash-34",
        "ids",
        {"val": Part("wd_val_01", "wd_val_19class", 70)},
        "wd_val_01.zip of WildDash 1, wilddash.cc",
        raw_ending="_100000_labelIds.png",
        ending="_100000_labelIds.png",
    ),
    "kitti-19": LabelSet(
        "KITTI",
        "kitti-34",
        "ids",
        {"all": Part("training/semantic", "training/label19", 200)},
        "data_semantics.zip, cvlibs.net/datasets/kitti",
    ),
    "scannet-20": LabelSet(
        "ScanNet/scannet_frames_25k",
        "scannet-41",
        "ids",
        {"all": Part(".", ".", 24902)},
        "scannet_frames_25k.zip of ScanNet's benchmark, scan-net.org",
        folders=("label", "label20"),
    ),
}
PREPARED = tuple(
    name for base, found in SETS.items() for name in (base, base + RELABELLED) if found.segments or name == base
)


def record_file(name: str) -> str:
    """The record of the labels of a set, below the folder of all sets."""
    return f"prepared/{name}.json"


def root_of(record: Path) -> Path | None:
    """The folder of all sets that a record of labels is of; None: it is none of MSeg's."""
    root = record.parent.parent
    return root if record.stem in PREPARED and record == root / record_file(record.stem) else None

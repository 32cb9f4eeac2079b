"""Miniatures of the large collections (NABirds, Pets, Flowers, Food, iNaturalist) in the layouts of
their official archives. Each function writes below ROOT and returns ROOT."""

import json
import uuid
from pathlib import Path

import numpy as np
from scipy import io

from tests.data_files import encode, picture, write_image, write_lines

# Class id -> name and parent, as in classes.txt and hierarchy.txt: inner nodes share names with
# leaves, leaf ids start in the hundreds, one leaf (295) has no image.
NABIRDS = {
    0: ("Birds", None),
    1: ("Ducks, Geese, and Swans", 0),
    22: ("Hawks, Kites, Eagles, and Allies", 0),
    127: ("Common Eider", 1),
    198: ("Osprey", 22),
    295: ("Common Eider (Adult male)", 127),
    299: ("Common Eider (Female/juvenile)", 127),
    311: ("Osprey", 198),
    817: ("Bald Eagle (Adult, subadult)", 22),
}
NABIRDS_PARTS = (
    "bill", "crown", "nape", "left eye", "right eye", "belly", "breast", "back", "tail",
    "left wing", "right wing",
)  # fmt: skip
PETS = {"Abyssinian": 1, "american_bulldog": 2, "Maine_Coon": 3}  # upper case: cats
FOODS = {"apple_pie": "Apple pie", "baby_back_ribs": "Baby back ribs", "takoyaki": "Takoyaki"}


def write_nabirds(root, *, train=2, test=1, size=(60, 48)):
    """ROOT/nabirds. Image i of all has the box (2, 3, 40 + i, 44), which is a pixel too high, and
    the visible point (i + p, 2 * p) for each part p but the tail."""
    folder, width_height = Path(root) / "nabirds", size
    lines = {name: [] for name in ("images", "image_class_labels", "train_test_split", "sizes")}
    lines |= {"bounding_boxes": [], "parts/part_locs": [], "photographers": []}
    number = 0
    for label, class_id in enumerate((817, 299, 311)):  # not in the order of the ids
        for i in range(train + test):
            key = uuid.UUID(int=(number * 7919 + 5) << 64)
            name = f"{class_id:04d}/{key.hex}.jpg"
            write_image(folder / "images" / name, picture(label, i, size, 3))
            lines["images"].append(f"{key} {name}")
            lines["image_class_labels"].append(f"{key} {class_id}")
            lines["train_test_split"].append(f"{key} {int(i < train)}")
            lines["sizes"].append(f"{key} {width_height[0]} {width_height[1]}")
            lines["bounding_boxes"].append(f"{key} 2 3 {40 + number} {size[1] - 2}")
            lines["photographers"].append(f"{key} Some One")
            for part, part_name in enumerate(NABIRDS_PARTS):
                seen = part_name != "tail"
                point = f"{number + part} {2 * part} 1" if seen else "-1 -1 0"
                lines["parts/part_locs"].append(f"{key} {part} {point}")
            number += 1
    lines["classes"] = [f"{key} {name}" for key, (name, _) in NABIRDS.items()]
    lines["hierarchy"] = [f"{key} {above}" for key, (_, above) in NABIRDS.items() if key]
    lines["parts/parts"] = [f"{i} {name}" for i, name in enumerate(NABIRDS_PARTS)]
    for name, rows in lines.items():
        write_lines(folder / f"{name}.txt", rows)
    return Path(root)


VOC = (
    "<annotation><folder>OXIIIT</folder><filename>{name}.jpg</filename><source><database>OXFORD-IIIT"
    " Pet Dataset</database><annotation>OXIIIT</annotation><image>flickr</image></source><size>"
    "<width>{w}</width><height>{h}</height><depth>3</depth></size><segmented>0</segmented><object>"
    "<name>{kind}</name><pose>Frontal</pose><truncated>0</truncated><occluded>0</occluded><bndbox>"
    "<xmin>{box[0]}</xmin><ymin>{box[1]}</ymin><xmax>{box[2]}</xmax><ymax>{box[3]}</ymax></bndbox>"
    "<difficult>0</difficult></object></annotation>"
)


def write_pets(root, *, trainval=3, test=2, size=(50, 40)):
    """ROOT/images and ROOT/annotations. Heads (5, 6, 20, 30) in trainval but for the last photo of
    each breed; one photo is really a PNG with alpha. Trimaps: a frame of background, one pixel of
    border, the pet inside."""
    root, lists, width, height = Path(root), {"trainval": [], "test": []}, *size
    trimap = np.full((height, width), 2, np.uint8)
    trimap[9:31, 9:41], trimap[10:30, 10:40] = 3, 1
    for breed, number in PETS.items():
        species = 1 if breed[0].isupper() else 2
        for i in range(1, trainval + test + 1):
            name, split = f"{breed}_{i}", "trainval" if i <= trainval else "test"
            image = picture(number, i, size, 3)
            write_image(root / "images" / f"{name}.jpg", image)
            write_image(root / "annotations" / "trimaps" / f"{name}.png", trimap)
            lists[split].append(f"{name} {number} {species} {1 + (number == 3)}")
            if i < trainval:
                text = VOC.format(
                    name=name,
                    w=width,
                    h=height,
                    kind=("cat", "dog")[species - 1],
                    box=(5, 6, 20, 30),
                )
                write_lines(root / "annotations" / "xmls" / f"{name}.xml", [text])
    alpha = np.dstack([picture(1, 1, size, 3), np.full((height, width), 99, np.uint8)])
    (root / "images" / "Abyssinian_1.jpg").write_bytes(encode(alpha, ".png"))
    (root / "images" / "Abyssinian_100.mat").write_bytes(b"MATLAB 5.0 MAT-file")
    header = ["#Image CLASS-ID SPECIES BREED ID", "#ID: 1:37 Class ids", "#SPECIES: 1:Cat 2:Dog"]
    for name, rows in lists.items():
        write_lines(root / "annotations" / f"{name}.txt", rows)
    write_lines(root / "annotations" / "list.txt", [*header, *lists["trainval"], *lists["test"]])
    return root


def write_flowers(root, *, classes=102, per_class=1, size=(24, 20)):
    """ROOT/jpg, ROOT/imagelabels.mat, ROOT/setid.mat: image n (from 1) has the class
    1 + (n * 5) % classes; the first third of the numbers is test, then train, then val."""
    root, total = Path(root), 3 * classes * per_class
    ids = np.arange(1, total + 1)
    for i in ids:
        write_image(root / "jpg" / f"image_{i:05d}.jpg", picture(i % 6, int(i), size))
    labels = (1 + (ids * 5) % classes).astype(np.float64)  # MATLAB's doubles, as the real ones
    thirds = np.split(ids.astype(np.float64), 3)
    io.savemat(root / "imagelabels.mat", {"labels": labels[None]})
    sets = dict(zip(("tstid", "trnid", "valid"), (part[None] for part in thirds), strict=True))
    io.savemat(root / "setid.mat", sets)
    return root


def write_food(root, *, train=3, test=2, size=(40, 30)):
    """ROOT/food-101 with images and meta; photo ids are as long as Foodspotting's."""
    folder, lists = Path(root) / "food-101", {"train": {}, "test": {}}
    for label, name in enumerate(FOODS):
        for i in range(train + test):
            photo = f"{name}/{1005649 + 211 * i + 17 * label}"
            write_image(folder / "images" / f"{photo}.jpg", picture(label, i, size, len(FOODS)))
            lists["train" if i < train else "test"].setdefault(name, []).append(photo)
    for split, photos in lists.items():
        flat = [photo for of_class in photos.values() for photo in of_class]
        write_lines(folder / "meta" / f"{split}.txt", flat)
        (folder / "meta" / f"{split}.json").write_text(json.dumps(photos))
    write_lines(folder / "meta" / "classes.txt", FOODS)
    write_lines(folder / "meta" / "labels.txt", FOODS.values())
    return Path(root)


# Category id -> super-category, genus and species: ids have a gap, two share their name.
SPECIES = {
    0: ("Plantae", "Ficus", "Ficus variegata"),
    1: ("Mollusca", "Ficus", "Ficus variegata"),
    3: ("Aves", "Haemorhous", "Haemorhous mexicanus"),
}
# What the folder of category 0 is really called in 2021.
FIRST_SPECIES = "00000_Animalia_Annelida_Clitellata_Haplotaxida_Lumbricidae_Lumbricus_terrestris"


def write_inaturalist(root, year, *, train=3, val=2, size=(40, 30), boxes=False, renamed=True):
    """ROOT with pictures and indices of one competition. Images are listed from the last category
    to the first, annotations in the opposite order. 2018, 2019: made-up names, `renamed` writes
    categories.json. 2021: train, train_mini (one image a species less) and val. 2017: with `boxes`
    image i of a species has i boxes, of which the last is the largest."""
    root, suffix = Path(root), "" if year == 2021 else year
    counts = {"train": train, "val": val}
    if year == 2021:
        counts["train_mini"] = train - 1
    for split, count in counts.items():
        index = _index(root, year, split, count, size)
        name = f"{split}{suffix}.json"
        (root / name).write_text(
            json.dumps(index)
        )  # escapes what is not ASCII, as the real ones do
        if boxes:
            (root / f"{split}_{year}_bboxes.json").write_text(json.dumps(_boxes(index, size)))
    if renamed and year in (2018, 2019):
        (root / "categories.json").write_text(json.dumps([_category(2021, i) for i in SPECIES]))
    return root


def _category(year, number):
    above, genus, name = SPECIES[number]
    kingdom = "Plantae" if above == "Plantae" else "Animalia"
    if year == 2017:
        return {"id": number, "name": name, "supercategory": above}
    if year in (2018, 2019):
        made_up = {"kingdom": "SMHLVG", "genus": "AIEVWT", "name": f"UYRGA{number}"}
        return {**made_up, "supercategory": above, "id": number}
    ranks = dict(phylum="P", order="O", family="F") | {"class": "C"}
    folder = f"{number:05d}_{kingdom}_P_C_O_F_{name.replace(' ', '_')}"
    return {
        "id": number, "name": name, "common_name": "Thing", "supercategory": above,
        "kingdom": kingdom, **ranks, "genus": genus, "specific_epithet": name.split()[1],
        "image_dir_name": folder if number else FIRST_SPECIES,
    }  # fmt: skip


def _index(root, year, split, count, size):
    images, annotations = [], []
    for number in reversed(SPECIES):
        for i in range(count):
            key = 1000 + len(images)
            stem = uuid.UUID(int=key * 7919 + year)
            if year == 2021:
                name = f"{split}/{_category(year, number)['image_dir_name']}/{stem}.jpg"
            else:
                top = "train_val_images" if year == 2017 else f"train_val{year}"
                folder = SPECIES[number][2] if year == 2017 else str(number)
                name = f"{top}/{SPECIES[number][0]}/{folder}/{split}{stem.hex}.jpg"
            write_image(root / name, picture(number, i, size, 4))
            entry = {"id": key, "width": size[0], "height": size[1], "file_name": name}
            images.append({**entry, "license": 1, "rights_holder": "\u5f35\u6052 {]\u5609"})
            if year == 2021:
                images[-1] |= {"date": "2014-07-12 16:04:38+00:00", "latitude": None}
            annotations.append({"id": key, "image_id": key, "category_id": number})
    return {
        "info": {"year": year, "contributor": ["a", {"b": 1}]},
        "images": images,
        "categories": [_category(year, number) for number in SPECIES],
        "licenses": [{"id": 1, "name": "by-nc", "url": "u"}],
        "annotations": annotations[::-1],
    }


def _boxes(index, size):
    """The boxes file numbers its images anew."""
    seen, images, annotations = {}, [], []
    for key, image in enumerate(index["images"]):
        folder = image["file_name"].rpartition("/")[0]
        i = seen[folder] = seen.get(folder, -1) + 1
        images.append({**image, "id": key})
        for k in range(i):
            box = [k, 2, 10 + k, size[1] + 5.5]
            annotations.append({"image_id": key, "category_id": 0, "bbox": box, "iscrowd": 0})
    return {**index, "images": images, "annotations": annotations}

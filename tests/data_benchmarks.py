"""Miniatures of CUB-200-2011, CUB-200 (2010), Stanford Cars and Dogs, file for file as their
official archives have them."""

import io
from pathlib import Path

import numpy as np
from PIL import Image
from scipy import io as matlab_io

from tests import data_files
from tests.data_files import write_lines

SIZE = (48, 40)  # width, height of every picture
BIRDS = ("001.Black_footed_Albatross", "002.Laysan_Albatross", "003.Sooty_Albatross")
PARTS = (
    "back", "beak", "belly", "breast", "crown", "forehead", "left eye", "left leg", "left wing",
    "nape", "right eye", "right leg", "right wing", "tail", "throat",
)  # fmt: skip
CARS = ("AM General Hummer SUV 2000", "Ram C/V Cargo Van Minivan 2012", "smart fortwo Convertible")
DOGS = ("n02085620-Chihuahua", "n02105855-Shetland_sheepdog", "n02107312-miniature_pinscher")


def write_mat(path, **variables):
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    matlab_io.savemat(path, variables, do_compression=True)
    return path


def structs(fields, rows):
    """A MATLAB struct array 1 x N: every value is a matrix of its own."""
    table = np.empty((1, len(rows)), [(field, object) for field in fields])
    for column, row in enumerate(rows):
        table[0, column] = tuple(row)
    return table


def cell(texts, axis=0):
    """A MATLAB cell array of texts, N x 1 or (`axis` 1) 1 x N."""
    values = np.empty(len(texts), object)
    values[:] = texts
    return values[:, None] if axis == 0 else values[None]


def bird_names(count=4):
    """`count` file names a class, "CLASS/Class_0001_796111.jpg"; the case differs, as it really
    does."""
    return [
        f"{bird}/{bird[4:].title()}_{i + 1:04d}_{796111 + 7 * i}.jpg"
        for bird in BIRDS
        for i in range(count)
    ]


def bird_box(i):
    """x, y, width, height of bird i: the first fills its picture, the second reaches beyond it."""
    return {0: (0, 0, *SIZE), 1: (10, 20, 40, 30)}.get(i, (3 + i, 4, 20, 15))


def bird_point(i, part):
    """x, y, visible of part 1 to 15 of bird i."""
    return (0, 0, 0) if (i + part) % 3 == 0 else (i + 2 * part, i + part, 1)


def bird_mask(i):
    """uint8 `[H, W]`: in each quarter another share of the five raters."""
    mask = np.zeros(SIZE[::-1], np.uint8)
    mask[10:20, i : i + 20], mask[20:30, i : i + 20] = 51, 255
    return mask


def write_cub(root):
    """ROOT/CUB_200_2011 and ROOT/segmentations, 12 images; the odd ids are test images."""
    root, names = Path(root), bird_names()
    folder = root / "CUB_200_2011"
    ids = range(1, len(names) + 1)
    for i, name in enumerate(names):
        image = data_files.picture(i // 4, i, SIZE, len(BIRDS))
        data_files.write_image(
            folder / "images" / name, Image.fromarray(image).convert("L") if i == 5 else image
        )
        path = root / "segmentations" / name.replace(".jpg", ".png")
        data_files.write_image(path, Image.fromarray(bird_mask(i)))
    write_lines(folder / "images.txt", [f"{k} {name}" for k, name in zip(ids, names, strict=True)])
    write_lines(folder / "classes.txt", [f"{k} {bird}" for k, bird in enumerate(BIRDS, start=1)])
    write_lines(folder / "image_class_labels.txt", [f"{k} {(k - 1) // 4 + 1}" for k in ids])
    write_lines(folder / "train_test_split.txt", [f"{k} {1 - k % 2}" for k in ids])
    boxes = [" ".join(f"{x:.1f}" for x in bird_box(k - 1)) for k in ids]
    write_lines(
        folder / "bounding_boxes.txt", [f"{k} {b}" for k, b in zip(ids, boxes, strict=True)]
    )
    write_lines(folder / "parts/parts.txt", [f"{k} {p}" for k, p in enumerate(PARTS, start=1)])
    points = []
    for k in ids:
        for part in range(1, 16):
            x, y, visible = bird_point(k - 1, part)
            points.append(f"{k} {part} {x:.1f} {y:.1f} {visible}")
    write_lines(folder / "parts/part_locs.txt", points)
    write_lines(root / "attributes.txt", ["1 has_bill_shape::curved_(up_or_down)"])
    return root


def write_cub2010(root):
    """ROOT/images, lists and annotations-mat, 12 images; the last of each class is for testing."""
    root, names = Path(root), bird_names()
    tests = names[3::4]
    for i, name in enumerate(names):
        image = data_files.picture(i // 4, i, SIZE, len(BIRDS))
        data_files.write_image(root / "images" / name, image)
        x, y, width, height = (float(value) for value in bird_box(i))
        box = {"left": x, "top": y, "right": x + width, "bottom": y + height}
        mask = (bird_mask(i) > 51).astype(np.uint8)
        write_mat(root / "annotations-mat" / name.replace(".jpg", ".mat"), bbox=box, seg=mask)
    write_lines(root / "lists/train.txt", [name for name in names if name not in tests])
    write_lines(root / "lists/test.txt", tests)
    write_lines(root / "lists/files.txt", names)
    write_lines(root / "lists/classes.txt", BIRDS)
    return root


def write_homework(root):
    """Below ROOT/2021VRDL_HW1_datasets training_images, testing_images and their lists: 9 and 3
    images in shuffled order."""
    top = Path(root)
    root = top / "2021VRDL_HW1_datasets"
    order = np.random.default_rng(0).permutation(12).tolist()
    train = [i for i in order if i % 4 != 3]
    test = [i for i in order if i % 4 == 3]
    for folder, chosen in (("training_images", train), ("testing_images", test)):
        for i in chosen:
            image = data_files.picture(i // 4, i, SIZE, len(BIRDS))
            data_files.write_image(root / folder / f"{i + 1:04d}.jpg", image)
    write_lines(root / "training_labels.txt", [f"{i + 1:04d}.jpg {BIRDS[i // 4]}" for i in train])
    write_lines(root / "testing_img_order.txt", [f"{i + 1:04d}.jpg" for i in test])
    write_lines(root / "classes.txt", BIRDS)
    return top


def car_box(i):
    """x1, y1, x2, y2 of car i, counted from 1, both corners inside; the first fills its picture."""
    return (1, 1, *SIZE) if i == 0 else (1 + i, 3, 30 + i, 25)


def _car_pictures(folder, digits, cars):
    for k, i in enumerate(cars, start=1):
        image = data_files.picture(i % 3, i, SIZE, len(CARS))
        data_files.write_image(folder / f"{k:0{digits}d}.jpg", image)


def write_cars(root, *, nested=False):
    """ROOT/cars_train, cars_test, devkit and cars_test_annos_withlabels.mat; 6 and 3 cars, of which
    car i is of class i % 3. `nested`: the folders of images lie in folders of the same name."""
    root = Path(root)
    fields = ["bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2", "class", "fname"]
    rows = {}
    for split, cars in (("train", range(6)), ("test", range(6, 9))):
        folder = root / f"cars_{split}"
        _car_pictures(folder / folder.name if nested else folder, 5, cars)
        rows[split] = [
            (*(np.uint16(x) for x in car_box(i)), np.uint8(i % 3 + 1), f"{k:05d}.jpg")
            for k, i in enumerate(cars, start=1)
        ]
    kit = root / "devkit"
    write_mat(kit / "cars_meta.mat", class_names=cell(CARS, axis=1))
    write_mat(kit / "cars_train_annos.mat", annotations=structs(fields, rows["train"]))
    hidden = [(*row[:4], row[5]) for row in rows["test"]]
    unlabelled = structs([*fields[:4], "fname"], hidden)
    write_mat(kit / "cars_test_annos.mat", annotations=unlabelled)
    write_mat(root / "cars_test_annos_withlabels.mat", annotations=structs(fields, rows["test"]))
    return root


def write_car_ims(root):
    """ROOT/car_ims and cars_annos.mat: the same 9 cars, train and test mixed and numbered anew."""
    root, order = Path(root), [6, 0, 1, 7, 2, 3, 8, 4, 5]
    _car_pictures(root / "car_ims", 6, order)
    fields = ["relative_im_path", "bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2", "class", "test"]
    rows = [
        (f"car_ims/{k:06d}.jpg", *(np.uint16(x) for x in car_box(i)))
        + (float(i % 3 + 1), float(i >= 6))
        for k, i in enumerate(order, start=1)
    ]
    names = cell(CARS, axis=1)
    write_mat(root / "cars_annos.mat", annotations=structs(fields, rows), class_names=names)
    return root


def dog_boxes(i):
    """The dogs of picture i, from 0, both corners inside; the second of picture 1 is the larger."""
    first, whole = (2 + i, 3, 20 + i, 22), (0, 0, SIZE[0] - 1, SIZE[1] - 1)
    return [first, whole] if i == 1 else [first, (5, 6, 9, 8)] if i == 2 else [first]


def dog_xml(name, breed, dogs):
    """The annotation of one picture; some of the real ones have "%s" for the name of the file."""
    objects = "".join(
        f"\t<object>\n\t\t<name>{breed}</name>\n\t\t<pose>Unspecified</pose>\n"
        "\t\t<truncated>0</truncated>\n\t\t<difficult>0</difficult>\n\t\t<bndbox>\n"
        f"\t\t\t<xmin>{box[0]}</xmin>\n\t\t\t<ymin>{box[1]}</ymin>\n"
        f"\t\t\t<xmax>{box[2]}</xmax>\n\t\t\t<ymax>{box[3]}</ymax>\n"
        "\t\t</bndbox>\n\t</object>\n"
        for box in dogs
    )
    return (
        f"<annotation>\n\t<folder>{name[1:9]}</folder>\n\t<filename>{name}</filename>\n"
        "\t<source>\n\t\t<database>ImageNet database</database>\n\t</source>\n\t<size>\n"
        f"\t\t<width>{SIZE[0]}</width>\n\t\t<height>{SIZE[1]}</height>\n\t\t<depth>3</depth>\n"
        f"\t</size>\n\t<segment>0</segment>\n{objects}</annotation>"
    )


def write_dogs(root):
    """ROOT/Images, Annotation and the lists: 12 pictures, the last of each breed is for testing.
    Picture 4 is a PNG with transparency, although its name ends in .jpg, as one really does."""
    root, names = Path(root), []
    for i in range(12):
        folder = DOGS[i // 4]
        name = f"{folder}/{folder[:9]}_{(5927, 4441, 1502, 1916)[i % 4]}"
        names.append(name)
        image = data_files.picture(i // 4, i, SIZE, len(DOGS))
        path = data_files.write_image(root / "Images" / f"{name}.jpg", image)
        if i == 4:
            alpha = np.full((*image.shape[:2], 1), 128, np.uint8)
            stream = io.BytesIO()
            Image.fromarray(np.concatenate([image, alpha], axis=2)).save(stream, "PNG")
            path.write_bytes(stream.getvalue())
        xml = root / "Annotation" / name
        xml.parent.mkdir(parents=True, exist_ok=True)
        shown = "%s" if i == 3 else name.partition("/")[2]
        xml.write_text(dog_xml(shown, folder[10:], dog_boxes(i)))
    lists = {"file": range(12), "train": [i for i in range(12) if i % 4 != 3], "test": [3, 7, 11]}
    for list_name, chosen in lists.items():
        write_dog_list(
            root / f"{list_name}_list.mat",
            [f"{names[i]}.jpg" for i in chosen],
            [i // 4 + 1 for i in chosen],
        )
    return root


def write_dog_list(path, names, labels):
    return write_mat(
        path,
        file_list=cell(names),
        annotation_list=cell([name.removesuffix(".jpg") for name in names]),
        labels=np.array(labels, np.uint8)[:, None],
    )

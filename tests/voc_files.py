"""Small image sets in Pascal VOC's layout, drawn by the tests themselves."""

import numpy as np
from PIL import Image, ImageDraw

NAMES = ("disc", "square")
BACKGROUND = (40, 40, 40)
COLOURS = {"disc": (230, 120, 40), "square": (60, 140, 230)}
ANNOTATION = """<annotation><size><width>{w}</width><height>{h}</height><depth>3</depth></size>
{objects}</annotation>
"""
OBJECT = """<object><name>{name}</name><difficult>{difficult}</difficult><bndbox>
<xmin>{left}</xmin><ymin>{top}</ymin><xmax>{right}</xmax><ymax>{bottom}</ymax></bndbox></object>
"""


def write_voc(folder, counts, seed=0, size=(96, 64), below=""):
    """Splits of `counts` images by name: discs and squares; returns the folder that holds them."""
    root = folder / below if below else folder
    for part in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (root / part).mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    index = 0
    for split, count in counts.items():
        names = []
        for _ in range(count):
            name = f"image_{index:03d}"
            index += 1
            names.append(name)
            objects = draw_image(root / f"JPEGImages/{name}.jpg", size, rng)
            write_annotation(root / f"Annotations/{name}.xml", size, objects)
        (root / f"ImageSets/Main/{split}.txt").write_text("\n".join(names) + "\n")
    return folder


def draw_image(path, size, rng):
    """A picture with two to three shapes; (name, left, top, right, bottom), pixels from 1."""
    width, height = size
    image = Image.new("RGB", size, BACKGROUND)
    pen = ImageDraw.Draw(image)
    objects = []
    for _ in range(int(rng.integers(2, 4))):
        side = int(rng.integers(18, 34))
        left = int(rng.integers(0, width - side))
        top = int(rng.integers(0, height - side))
        name = NAMES[int(rng.integers(2))]
        shape = (left, top, left + side - 1, top + side - 1)
        (pen.ellipse if name == "disc" else pen.rectangle)(shape, fill=COLOURS[name])
        objects.append((name, left + 1, top + 1, left + side, top + side))
    image.save(path, quality=95)
    return objects


def write_annotation(path, size, objects, difficult=0):
    parts = [
        OBJECT.format(
            name=name, left=left, top=top, right=right, bottom=bottom, difficult=difficult
        )
        for name, left, top, right, bottom in objects
    ]
    path.write_text(ANNOTATION.format(w=size[0], h=size[1], objects="".join(parts)))

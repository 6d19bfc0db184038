"""draw images of classes with a text-to-image server: the pairs that GIFT replays"""

from __future__ import annotations

import argparse
from pathlib import Path
from random import Random
from shlex import quote

from degla.errors import DeglaError, InputError
from degla.pages.words import counted
from degla.verbs._arguments import require_least, require_parent
from degla.verbs._drawing import check_drawing, describe_drawing, draw
from degla.verbs._terminal import tell


def describe(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "classes", type=Path, nargs="+", metavar="CLASSES", help="files of class names, as --data.classes reads them"
    )
    verb.add_argument("--count", type=int, default=1000, metavar="N", help="images in all, evenly by class (1000)")
    verb.add_argument("--template", default="a photo of a {}.", help="text of a class (%(default)s)")
    out = "folder of the images and captions.jsonl"
    verb.add_argument("--out", type=Path, required=True, metavar="FOLDER", help=out)
    describe_drawing(verb.add_argument_group("text-to-image server"))


def run(arguments: argparse.Namespace) -> int:
    require_least(arguments, "count", least=1)
    require_parent(arguments.out)
    check_drawing(arguments, arguments.out)
    if arguments.template.count("{}") != 1:
        raise InputError(f"--template is {arguments.template!r}; it must contain {{}} exactly once.")
    from degla.data.extras import read_classes
    from degla.data.neighbours import drawn_text
    from degla.records import CaptionRecord, write_jsonl

    names = list(dict.fromkeys(name for path in arguments.classes for name in read_classes(path)))
    times = -(-arguments.count // len(names))
    chance = Random(arguments.seed)
    rounds = [chance.sample(names, len(names)) for _ in range(times)]  # The images of a smaller --count come first.
    drawn = [name for each in rounds for name in each][: arguments.count]
    texts = {f"{number:06}": arguments.template.replace("{}", name) for number, name in enumerate(drawn)}
    missing = draw(texts, arguments.out, arguments)
    captions = [
        CaptionRecord(id=name, image=f"{name}.png", text=text, image_id=name)
        for name, text in texts.items()
        if drawn_text(arguments.out / f"{name}.png") == text
    ]
    if not captions:
        raise DeglaError(f"{arguments.out}: no image was drawn.")
    count = write_jsonl(arguments.out / "captions.jsonl", captions)
    classes = len({caption.text for caption in captions})
    tell(f"{counted(count, 'image')} of {counted(classes, 'class', 'classes')}: {arguments.out}")
    folder, file = quote(str(arguments.out)), quote(str(arguments.out / "captions.jsonl"))
    tell(f"Train with: --replay.data.captions {file} --replay.data.images {folder}")
    return int(bool(missing))

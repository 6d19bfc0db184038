"""Text-to-image servers: their arguments, and images that they draw."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

from degla.errors import InputError
from degla.pages.words import counted
from degla.remote import refuse_address
from degla.verbs._arguments import describe_server, require_least, server_settings
from degla.verbs._terminal import tell


def describe_drawing(group: argparse._ArgumentGroup) -> None:
    """Add the arguments that `draw` reads."""
    describe_server(group, concurrency=8, timeout=300)
    group.add_argument("--model", metavar="NAME", help="model on the server")
    group.add_argument("--seed", type=int, default=0, help="seed of the first image of each text (0)")


def check_drawing(arguments: argparse.Namespace, folder: Path) -> None:
    """Raise InputError if an argument is out of range, or `folder` is an address."""
    if not (arguments.base_url and arguments.model):
        raise InputError("Drawing needs --base-url URL and --model NAME.")
    refuse_address(folder)
    require_least(arguments, "concurrency", least=1)
    require_least(arguments, "retries", least=0)


def draw(texts: Mapping[str, str], folder: Path, arguments: argparse.Namespace) -> int:
    """Draw the images that a folder lacks; return how many are not drawn, and say why the first is not."""
    from degla.negatives.drawing import ImageServer, draw_images
    from degla.progress import TaskProgress

    server = ImageServer(arguments.base_url, arguments.model, **server_settings(arguments))
    folder.mkdir(parents=True, exist_ok=True)
    with closing(server), TaskProgress(show=True).task("drawing", len(texts)) as advance:
        faults = draw_images(texts, folder, server, advance=advance)
    if faults:
        tell(f"{counted(len(faults), 'image')} not drawn; the same command asks again. The first: {faults[0]}")
    return len(faults)

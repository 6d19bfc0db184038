"""Arguments of every verb that reads captions."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from degla.data.sources import Columns


def describe_columns(verb: argparse.ArgumentParser) -> None:
    """Arguments of every verb that reads captions."""
    verb.add_argument("--format", default="auto", help="format of CAPTIONS; told from the file by default")
    verb.add_argument("--id-column", default="id", help="column of the caption id (id)")
    verb.add_argument("--image-column", default="image", help="column of the image path (image)")
    verb.add_argument("--text-column", default="text", help="column of the caption (text)")
    verb.add_argument("--image-id-column", default="image_id", help="column of the image id (image_id)")


def columns(given: argparse.Namespace) -> Columns:
    """The names of the fields that the arguments give."""
    from degla.data.sources import Columns

    return Columns(id=given.id_column, image=given.image_column, text=given.text_column, image_id=given.image_id_column)

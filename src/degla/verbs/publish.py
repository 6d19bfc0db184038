"""export a model with a model card and upload it to the Hugging Face hub"""

from __future__ import annotations

import argparse
import sys

from degla.pages.words import counted
from degla.verbs._terminal import tell
from degla.verbs.export import FORMS, WHAT, describe_card, megabytes


def describe(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("model", metavar="MODEL", help="any model that degla loads, or a folder from degla export")
    verb.add_argument("--to", required=True, metavar="OWNER/NAME", help="hub repository, created if it does not exist")
    verb.add_argument("--form", choices=FORMS, help="format of the files (open_clip, or that of an exported folder)")
    verb.add_argument("--what", choices=WHAT, help="which weights of a run (those that evaluation uses)")
    describe_card(verb)
    verb.add_argument("--private", action="store_true", help="make a newly created repository private")
    verb.add_argument("--dry-run", action="store_true", help="show the files and the model card without uploading")


def run(arguments: argparse.Namespace) -> int:
    from degla.export.publish import publish

    upload = publish(
        arguments.model, to=arguments.to, form=arguments.form, what=arguments.what, results=arguments.results,
        licence=arguments.license, private=arguments.private, dry_run=arguments.dry_run,
    )  # fmt: skip
    for name, size in upload.files:
        sys.stdout.write(f"{megabytes(size):>14}  {name}\n")
    if arguments.dry_run:
        sys.stdout.write(f"\n{upload.card}")
        tell(
            f"nothing was uploaded; without --dry-run, {counted(len(upload.files), 'file goes', 'files go')} to "
            f"{arguments.to}"
        )
    else:
        sys.stdout.write(f"{upload.address}\n")
    return 0

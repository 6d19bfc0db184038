"""select drafted examples with the keyboard, in the terminal or in the browser"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from degla.verbs._arguments import CAPTION_FLAGS, describe_columns, given_captions, refuse_given

if TYPE_CHECKING:
    from degla.negatives.review import Draft


def describe(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("drafts", type=Path, help="file from degla examples draft; with --captions, a negatives file")
    verb.add_argument("--out", type=Path, required=True, help="folder of RULE.yaml files, or one .yaml file")
    verb.add_argument("--rules", nargs="+", metavar="RULE", help="review only these rules (all)")
    verb.add_argument("--page", action="store_true", help="review in the browser instead of the terminal")
    verb.add_argument("--images", type=Path, metavar="DIR", help="page: show each caption's image from this folder")
    verb.add_argument("--port", type=int, default=7860, help="page: port on 127.0.0.1; 0 picks a free one (7860)")
    verb.add_argument("--captions", type=Path, help="captions of DRAFTS, which then is a file of generated negatives")
    verb.add_argument("--count", type=int, default=60, help="with --captions: random negatives to review (60)")
    verb.add_argument("--refused", action="store_true", help="with --captions: include negatives the checks rejected")
    verb.add_argument("--seed", type=int, default=0, help="with --captions: seed of the sample (0)")
    describe_columns(verb)


def run(given: argparse.Namespace) -> int:
    from degla.negatives.review import Review

    if not given.page:
        refuse_given(given, "images", "port", why="requires --page.")
    if given.captions is None:
        refuse_given(given, "count", "refused", "seed", *CAPTION_FLAGS, why="requires --captions.")
    drafts = _drafts(given)
    log = given.drafts.with_name(given.drafts.name + ".review.jsonl")
    with Review(drafts, log=log, out=given.out) as review:
        if given.page:
            from degla.app.review_page import serve

            serve(review, images=given.images, port=given.port)
        else:
            from degla.app.review_terminal import review_in_terminal

            review_in_terminal(review)
    return 0


def _drafts(given: argparse.Namespace) -> list[Draft]:
    from degla.errors import InputError
    from degla.negatives.review import Draft, draw_drafts, negatives_as_drafts
    from degla.records import read_jsonl
    from degla.shelf import RULES

    for rule in given.rules or ():
        RULES.require(rule)
    if given.captions is None:
        drafts = [draft for draft in read_jsonl(Draft, given.drafts) if not given.rules or draft.rule in given.rules]
    else:
        from degla.data.sources import read_negatives

        found = negatives_as_drafts(
            read_negatives(given.drafts),
            given_captions(given),
            where=given.drafts,
            rules=given.rules or (),
            accepted_only=not given.refused,
        )
        drafts = draw_drafts(found, count=given.count, seed=given.seed)
    if not drafts:
        raise InputError(
            f"{given.drafts}: contains no drafts" + (f" of {', '.join(given.rules)}." if given.rules else ".")
        )
    return drafts

"""select drafted examples with the keyboard, in the terminal or in the browser"""

from __future__ import annotations

import argparse
from pathlib import Path

from degla.verbs._arguments import refuse_flags


def describe(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("drafts", type=Path, metavar="DRAFTS", help="file from degla examples draft")
    out = "folder of RULE.yaml files, or one .yaml file"
    verb.add_argument("--out", type=Path, required=True, metavar="PATH", help=out)
    verb.add_argument("--rules", nargs="+", metavar="RULE", help="review only these rules (all)")
    verb.add_argument("--page", action="store_true", help="review in the browser instead of the terminal")
    verb.add_argument("--port", type=int, default=7860, help="page: port on 127.0.0.1; 0 picks a free one (7860)")


def run(arguments: argparse.Namespace) -> int:
    from degla.errors import InputError
    from degla.negatives.review import Draft, Review
    from degla.records import read_jsonl
    from degla.shelf import RULES

    if not arguments.page:
        refuse_flags(arguments, "port", why="requires --page.")
    for rule in arguments.rules or ():
        RULES.require(rule)
    drafts = [
        draft for draft in read_jsonl(Draft, arguments.drafts) if not arguments.rules or draft.rule in arguments.rules
    ]
    if not drafts:
        raise InputError(
            f"{arguments.drafts}: contains no drafts"
            + (f" of {', '.join(arguments.rules)}." if arguments.rules else ".")
        )
    log = arguments.drafts.with_name(arguments.drafts.name + ".review.jsonl")
    with Review(drafts, log=log, out=arguments.out) as review:
        if arguments.page:
            from degla.app.review_page import serve

            serve(review, port=arguments.port)
        else:
            from degla.app.review_terminal import review_in_terminal

            review_in_terminal(review)
    return 0

"""compare models side by side in the browser: your own images, changed items, a folder searched by text"""

from __future__ import annotations

import argparse
from pathlib import Path

from degla.verbs._arguments import refuse_flags
from degla.verbs._scoring import describe_cache, open_cache_of, resolve_device


def describe(verb: argparse.ArgumentParser) -> None:
    models = "as for degla evaluate; all are compared with the first (photo)"
    verb.add_argument("--models", nargs="+", default=["photo"], metavar="MODEL", help=models)
    results = "JSON files of degla evaluate, or folders of them: show a gallery of the items that changed"
    verb.add_argument("--results", nargs="+", type=Path, default=[], metavar="RESULTS", help=results)
    baseline = "label that the gallery compares with (that of the first result)"
    verb.add_argument("--baseline", metavar="LABEL", help=baseline)
    root = "folder with the benchmarks' data: texts and images of the gallery"
    verb.add_argument("--root", type=Path, metavar="DATA", help=root)
    verb.add_argument("--folder", type=Path, metavar="IMAGES", help="folder of images to search by text")
    verb.add_argument("--port", type=int, default=7861, help="port on 127.0.0.1; 0 picks a free one (7861)")
    verb.add_argument("--device", default="auto", help="cpu, cuda, ... (auto)")
    describe_cache(verb)


def run(arguments: argparse.Namespace) -> int:
    if not arguments.results:
        refuse_flags(arguments, "baseline", "root", why="requires --results.")
    if arguments.folder is None:
        refuse_flags(arguments, "cache", "no_cache", why="requires --folder.")
    from degla.app.comparison_page import ComparisonPage, serve
    from degla.app.serving import open_gradio
    from degla.evaluation.changes import Gallery
    from degla.evaluation.models import load_model
    from degla.evaluation.report import result_files
    from degla.progress import TaskProgress
    from degla.search import ImageFolder, ImageSearch

    open_gradio("Or use `degla look` in the terminal, which needs no extra package.")
    # Data come before models: a wrong folder is reported before anything is downloaded.
    gallery = None
    if arguments.results:
        gallery = Gallery(result_files(arguments.results), baseline=arguments.baseline, root=arguments.root)
    images = None if arguments.folder is None else ImageFolder.read(arguments.folder)
    models = [load_model(name, device=resolve_device(arguments.device)) for name in arguments.models]
    search = None
    if images is not None:
        with open_cache_of(arguments) as cache:
            search = ImageSearch(images, models, cache=cache, progress=TaskProgress(show=True))
    serve(ComparisonPage(models, gallery=gallery, search=search), port=arguments.port)
    return 0

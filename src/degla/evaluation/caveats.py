"""Caveats of results: missing images, ties, differing settings, parts that can be solved from the texts only."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

from degla.evaluation.models import SCORES_ARE
from degla.evaluation.overlap import Leakage
from degla.evaluation.results import TracedResult
from degla.evaluation.text_floors import TEXT_SOLVABLE
from degla.pages.words import capitalized, counted
from degla.results import BenchmarkResult, Result
from degla.statistics.seeds import QuestionVariance, doubt_of

_NAMED = 3
_ITEMS_PER_TIE = 1000
"""Ties are reported from one in this many items on. Fewer change a score by less than 0.1 points, as it is printed."""
_POINTS = "This can change scores by points"
_HALF = "In measurements half precision changed scores by up to 0.6 points, on 2,000 items or more by up to 0.3"


def caveats_of(
    results: Sequence[tuple[str, TracedResult]],
    *,
    floors: Sequence[tuple[str, Result]] = (),
    baseline: str | None = None,
) -> Iterator[str]:
    """Yield one sentence per warning.

    Args:
        results: (label, result) in the order of the report.
        floors: the same for models that cannot know the answer.
        baseline: label of the results that the others are compared with.
    """
    titles = {entry.name: entry.title for _, result in results for entry in result.benchmarks}
    blind = {label for label, result in results if result.model.floor == "blind"}
    for name in titles:
        entries = [(label, entry) for label, result in results for entry in result.benchmarks if entry.name == name]
        yield from _of_benchmark(entries, blind=blind)
    yield from _unlike(results)
    yield from dict.fromkeys(_other_bases(results))
    # The seeds of one method were mostly trained on the same images.
    yield from dict.fromkeys(each for label, result in results for each in of_training(label, result.leakage, titles))
    for label, floor in floors:
        for entry in floor.benchmarks if floor.model.floor == "blind" else ():
            yield from _answered_blind(label, entry)
    # Each seed of a method has the same base.
    yield from dict.fromkeys(_tuned_baseline(results, baseline))


def of_training(label: str, leakage: Leakage | None, titles: Mapping[str, str]) -> Iterator[str]:
    """Yield the sentences on benchmark images in the training data, and on training data that is not known."""
    yield from trained_on(label, leakage, titles)
    yield from trained_unknown(label, leakage)


def trained_unknown(label: str, leakage: Leakage | None) -> Iterator[str]:
    """Yield a sentence for each earlier model whose training images are unknown, and for data that changed since."""
    for name in leakage.unknown if leakage else ():
        yield f"{label}: was fine-tuned from {name}, which is not found: what that was trained on is not counted."
    for name in leakage.changed if leakage else ():
        yield (
            f"{label}: {name} changed or moved after the training: benchmark images that were trained on may be "
            "missed, and others counted."
        )


def trained_on(label: str, leakage: Leakage | None, titles: Mapping[str, str]) -> Iterator[str]:
    """Yield a sentence for each benchmark whose images were trained on; `titles`: benchmark name to title."""
    for overlap in leakage.overlaps if leakage else ():
        if overlap.shared:
            ways = [
                f"{count} by {way}"
                for count, way in ((overlap.by_id, "COCO id"), (overlap.by_content, "content"))
                if count
            ]
            yield (
                f"{titles.get(overlap.benchmark, overlap.benchmark)}, {label}: {overlap.shared} of "
                f"{counted(overlap.images, 'benchmark image is', 'benchmark images are')} in the training data "
                f"({', '.join(ways)}), for example {overlap.examples[0]}."
            )


def _answered_blind(label: str, entry: BenchmarkResult) -> Iterator[str]:
    """Parts on which a blind floor beats chance."""
    parts = [
        f"{part.name} {100 * score.value:.0f} % (chance {100 * score.chance:.0f} %)"
        for part in entry.parts
        for score in part.scores[:1]
        if score.chance is not None and score.interval is not None and score.interval.low > score.chance
    ]
    if parts:
        more = f" and {counted(len(parts) - _NAMED, 'more part')}" if len(parts) > _NAMED else ""
        yield f"{entry.title}: {label} beats chance without the image: {', '.join(parts[:_NAMED])}{more}."


def doubt_about(
    questions: QuestionVariance | None, results: Iterable[TracedResult], benchmarks: Collection[str]
) -> str:
    """Return why a difference on these benchmarks may not be called significant; "" if it may.

    Args:
        questions: its uncertainty over questions, see `doubt_of`.
        results: those that it was computed from: any may have images that were trained on or are missing.
        benchmarks: names of the benchmarks of its scores.
    """
    leaked = missing = False
    for result in results:
        overlaps = result.leakage.overlaps if result.leakage is not None else ()
        leaked |= any(overlap.shared > 0 and overlap.benchmark in benchmarks for overlap in overlaps)
        missing |= any(entry.missing_images > 0 and entry.name in benchmarks for entry in result.benchmarks)
    return doubt_of(questions, leaked=leaked, missing=missing)


def missing_images(entry: BenchmarkResult) -> Iterator[str]:
    """Yield a sentence if images of a benchmark are missing."""
    if entry.missing_images:
        missing = sum(part.missing for part in entry.parts)
        total = missing + sum(part.scored for part in entry.parts)
        # A retrieval part misses images; if it has scored only texts, there is no total of both.
        mixed = any(part.family == "retrieval" and "text_to" in part.scores[0].metric for part in entry.parts)
        items = counted(missing, "item is", "items are")
        items = items if mixed else f"{missing:,} of {counted(total, 'item is', 'items are')}"
        yield (
            f"{entry.title}: {counted(entry.missing_images, 'image was', 'images were')} missing, so {items} not in "
            "the score. It must not be compared with published numbers."
        )


def _of_benchmark(entries: Sequence[tuple[str, BenchmarkResult]], *, blind: Collection[str]) -> Iterator[str]:
    title = entries[0][1].title
    missing = max(entries, key=lambda entry: entry[1].missing_images)[1]
    yield from missing_images(missing)
    for part in missing.parts:
        count = part.scored + part.missing + part.filtered
        if part.published_n is not None and part.family != "retrieval" and count != part.published_n:
            items = counted(count, "item")
            yield f"{title}, {part.name}: the files have {items}, the published ones {part.published_n}."
    labels: dict[str, tuple[int, int]] = {}
    for label, entry in entries:
        ties = sum(part.scores[0].ties for part in entry.parts)
        n = sum(part.scores[0].n for part in entry.parts)
        if label not in blind and ties * _ITEMS_PER_TIE >= n and ties > labels.get(label, (0, n))[0]:
            labels[label] = (ties, n)
    for label, (ties, n) in labels.items():
        rules = ", ".join(sorted({part.tie for _, entry in entries for part in entry.parts}))
        yield (
            f"{title}, {label}: {ties:,} of {counted(n, 'item')} tie exactly (tie rule: {rules}). Possible causes: a "
            "model that ignores word order, or half-precision embeddings."
        )
    degenerate = max(sum(part.degenerate for part in entry.parts) for _, entry in entries)
    if degenerate:
        yield (
            f"{title}: in {counted(degenerate, 'item')} a true and a false text have the same tokens, so no model can "
            "tell them apart."
        )
    if len({entry.items_sha256 for _, entry in entries}) > 1:
        yield f"{title}: the results do not all answer the same questions, so no gains and no best are shown for it."
    rules_of = {tuple((part.name, part.tie) for part in entry.parts) for _, entry in entries}
    if len(rules_of) > 1 and len({rule for rules in rules_of for _, rule in rules}) > 1:
        yield f"{title}: results were scored under different tie rules, so no gains and no best are shown for it."


def other_base(label: str, base: str, other: str) -> str:
    """Return a sentence: a model was fine-tuned from `base` when that had other weights than were scored as `other`."""
    return (
        f"{label}: was fine-tuned from {base} when it had other weights than were scored as {other}, so their "
        "difference is not what the training changed."
    )


def _other_bases(results: Sequence[tuple[str, Result]]) -> Iterator[str]:
    for label, result in results:
        tuned = result.model
        for other, start in results if tuned.base and tuned.base_fingerprint else ():
            if start.model.name == tuned.base and start.model.fingerprint != tuned.base_fingerprint:
                yield other_base(label, tuned.base, other)


def _tuned_baseline(results: Sequence[tuple[str, Result]], baseline: str | None) -> Iterator[str]:
    """Yield a sentence for each other model that the baseline was fine-tuned from."""
    for base in (result.model for label, result in results if label == baseline):
        for label, result in results if base.base_fingerprint else ():
            if label != baseline and result.model.fingerprint == base.base_fingerprint:
                yield (
                    f"{baseline}: the baseline ({base.name}) was fine-tuned from {label} ({result.model.name}). Are "
                    "the labels swapped?"
                )


def _unlike(results: Sequence[tuple[str, Result]]) -> Iterator[str]:
    readers: tuple[tuple[str, Callable[[Result], str], str], ...] = (
        ("activation function", lambda result: result.model.activation, _POINTS),
        ("precision", lambda result: result.model.precision, _HALF),
        ("image reading", lambda result: result.image_reading, _POINTS),
        ("scorer", lambda result: result.scorer, _POINTS),
        ("degla version", lambda result: result.versions.get("degla", "unknown"), _POINTS),
        ("torch version", lambda result: result.versions.get("torch", "unknown"), _POINTS),
    )
    for noun, read, effect in readers:
        values = sorted({read(result) for _, result in results})
        if len(values) > 1:
            yield f"The results differ in the {noun}: {', '.join(values)}. {effect}."
    if len(scorers := {result.scorer for _, result in results}) == 1 and (scorer := scorers.pop()) in SCORES_ARE:
        yield f"{capitalized(SCORES_ARE[scorer])}."
    seeds = Counter(label for label, _ in results)
    single = [label for label, count in seeds.items() if count == 1]
    if len(single) == len(seeds) > 1:
        yield (
            "Only one training seed per method: intervals cover only items, and another run of the same training may "
            "change the ranking. Evaluate several seeds under one label to see by how much."
        )
    elif single and len(seeds) > 1:
        yield (
            f"Only one result for {', '.join(single)}: its intervals cover items, not training seeds, and differences "
            "from it treat it as fixed: their intervals are too narrow if it is one run of several possible ones."
        )


def titled_notes(
    entries: Iterable[BenchmarkResult], notes: Callable[[BenchmarkResult], Iterable[str]]
) -> tuple[str, ...]:
    """Return "TITLE: sentence" of `floor_notes` or `probe_notes` of some benchmarks, each once."""
    return tuple(dict.fromkeys(f"{entry.title}: {note}" for entry in entries for note in notes(entry)))


def probe_notes(entry: BenchmarkResult) -> Iterator[str]:
    """Yield what linear probes were fitted on, a sentence for parts with a training split and one for the others."""
    probes = {part.name: part.probe for part in entry.parts if part.probe is not None}
    if on := [f"{name} {counted(probe.images, 'image')}" for name, probe in probes.items() if not probe.folds]:
        yield f"linear probes were fitted on the training split: {', '.join(on)}."
    for folds in {probe.folds: None for probe in probes.values() if probe.folds}:
        names = [name for name, probe in probes.items() if probe.folds == folds]
        yield f"no training split, so linear probes were fitted by {folds}-fold cross-validation: {', '.join(names)}."
    if copies := [f"{probe.copies:,} of {name}" for name, probe in probes.items() if probe.copies]:
        yield f"scored images are in the training split, too, with the same bytes: {', '.join(copies)}."


def floor_notes(entry: BenchmarkResult) -> Iterator[str]:
    """Yield a sentence that names every part that a text floor solves, with those floors; nothing if there is none."""
    if not entry.text_solvable:
        return
    scores = {part.name: part.scores[0] for part in entry.parts}
    named = [
        f"{name} ({', '.join(f'{floor} {100 * scores[name].floors[floor]:.1f}' for floor in floors)})"
        for name, floors in entry.text_solvable.items()
        if name in scores
    ]
    remaining = [part.name for part in entry.parts if part.name not in entry.text_solvable and part.scores[0].floors]
    rest = "no part is left"
    if "composition" in entry.headline:
        rest = f"not counted in composition, which is {entry.headline['composition']}"
    elif remaining:
        verb = "is" if len(remaining) == 1 else "are"
        rest = f"not counted in composition, which is not given, since of its other parts only {', '.join(remaining)} "
        rest += f"{verb} there"
    yield f"{TEXT_SOLVABLE}, {rest}: {', '.join(named)}."

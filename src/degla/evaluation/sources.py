"""Where a report's numbers come from: models, versions and files of a method, paper and licence of a benchmark."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from degla.evaluation.cells import Method
from degla.evaluation.comparison import Comparison
from degla.evaluation.results import TracedResult

Data = dict[str, Any]


def provenance(method: Method) -> Data:
    """Where a method's numbers come from."""
    results = list(method.results.values())

    def distinct(values: Iterable[str]) -> list[str]:
        return list(dict.fromkeys(values))

    return {
        "label": method.label,
        "models": distinct(result.model.name for result in results),
        "fingerprints": distinct(result.model.fingerprint for result in results),
        "activation": distinct(result.model.activation for result in results),
        "precision": distinct(result.model.precision for result in results),
        "image_reading": distinct(result.image_reading or "not recorded" for result in results),
        "seeds": [seed for seed in method.results if seed is not None],
        "versions": distinct(
            ", ".join(f"{name} {value}" for name, value in result.versions.items()) for result in results
        ),
        "dates": distinct(result.date for result in results),
        "training_data": distinct(_training_data(result) for result in results),
        "files": [path.name for path in method.paths.values()],
    }


def _training_data(result: TracedResult) -> str:
    """What is known of the images that the model was fine-tuned on."""
    leakage = result.leakage
    if leakage is None:
        return "not known"
    shared = [f"{overlap.shared} of {overlap.images} of {overlap.benchmark}" for overlap in leakage.overlaps]
    return f"{', '.join(leakage.captions)}: {leakage.images} images, among them {', '.join(shared) or 'none'}"


def benchmark_sources(comparison: Comparison) -> dict[str, Data]:
    """Name to title, paper, licence, tie rules and digests, of the first result that has it."""
    found: dict[str, Data] = {}
    for method in comparison.methods:
        for result in method.results.values():
            for entry in result.benchmarks:
                found.setdefault(
                    entry.name,
                    {
                        "title": entry.title,
                        "paper": entry.paper,
                        "licence": entry.licence,
                        "ties": sorted({part.tie for part in entry.parts}),
                        "items_sha256": entry.items_sha256,
                        "annotations": len(entry.annotation_sha256),
                        "n": sum(part.scores[0].n for part in entry.parts),
                        "missing": sum(part.missing for part in entry.parts),
                    },
                )
    return found


def titles_of(comparison: Comparison) -> dict[str, str]:
    """Name of each benchmark to its title in print."""
    return {name: data["title"] for name, data in benchmark_sources(comparison).items()}

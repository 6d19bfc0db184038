"""check a training configuration before it runs: files, memory, disk space, and what limits its speed"""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

from degla.processes import first_process
from degla.verbs._terminal import print_json
from degla.verbs._training import configure

if TYPE_CHECKING:
    from degla.config.run import TrainConfig

_USAGE = (
    "usage: degla doctor RECIPE | --config FILE [--json] [FLAGS OF degla train]\n\n"
    "Reads the files, loads the model, decodes images and runs a few steps. Reports the size of the run, problems\n"
    "that would stop it, how long it takes, what limits its speed, and which flags would help. --out is optional.\n"
    "The exit status is 1 if there is an error.\n"
    "degla doctor RECIPE --help lists the usual flags, --help all lists every flag.\n"
)


def run_words(words: list[str]) -> int:
    """`degla doctor RECIPE [flags]`, with the flags of `degla train`."""
    if not words or words[0] in ("-h", "--help"):
        sys.stdout.write(_USAGE)
        return 0 if words else 2
    as_json = "--json" in words
    return tell_findings(configure([word for word in words if word != "--json"], verb="doctor"), as_json=as_json)


def tell_findings(config: TrainConfig, *, as_json: bool) -> int:
    """Print each finding as it is made; return 1 if one of them is an error."""
    from degla.doctor.examine import examine

    findings = []
    for finding in examine(config):
        findings.append(finding)
        if first_process() and not as_json:
            sys.stdout.write(f"{finding.state:<7} {finding.about:<14} {finding.text}\n")
            sys.stdout.flush()
    if first_process() and as_json:
        print_json([asdict(finding) for finding in findings])
    return int(any(finding.state == "error" for finding in findings))

"""Run `degla` as `python -m degla`."""

from degla.cli import main

raise SystemExit(main())

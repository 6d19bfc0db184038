"""`python -m degla` is `degla`."""

from degla.cli import main

raise SystemExit(main())

"""Browser pages for comparing models and reviewing examples. No other package imports this one."""

"""Fetching the files of benchmarks and training sets: a name and a folder enter, verified files leave in the folder.

`sources.toml` lists all sources, `sources` reads it, `transfer` downloads one file over HTTP and resumes interrupted
downloads, `unpack` extracts archives, `fetch` combines these and reports what must be requested by hand.
"""

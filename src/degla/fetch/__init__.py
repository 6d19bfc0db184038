"""Getting the files of benchmarks and training sets: a name and a folder enter, checked files leave under the folder.

`sources.toml` says where everything comes from, `sources` reads it, `transfer` takes one file over HTTP and goes on
where it stopped, `unpack` opens archives, `fetch` does all of it and says what only a person can ask for.
"""

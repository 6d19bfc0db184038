"""One run over captions: batches enter, rows leave in the order of captions and rules, whatever happens between.

stream.py reads captions in batches; dialogue.py holds what is asked about one caption; pipeline.py keeps a language
model busy with many; output.py continues a file and its journal, in which each reply is written down before it counts;
summary.py counts and talks to the person in front; ray_engine.py spreads the work over a cluster.
"""

"""One run over captions: from batches to rows in the order of captions and rules, whatever happens in between.

stream.py reads captions in batches; dialogue.py makes the requests about one caption; pipeline.py keeps a language
model busy with many dialogues; output.py continues a file and its journal, to which each reply is written before it is
used; summary.py counts and reports to the user; ray_engine.py distributes the work over a cluster.
"""

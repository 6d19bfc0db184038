"""Room: a model enters; a folder for another program leaves, with verified embeddings and a model card; or to the hub.

Flow: checkpoints -> folders for other programs
"""

"""Room: a model enters; a folder for another program leaves, its embeddings compared, with a card, and goes to the hub.

Flow: checkpoints -> folders for other programs
"""

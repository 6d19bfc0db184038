"""SHELF - recipes: each file holds one function of the file's name that returns a full `TrainConfig`."""

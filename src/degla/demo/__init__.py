"""The whole pipeline in one command, on the embedded world or on your own photographs and captions."""

"""The whole pipeline in one command: on the embedded world, or on photographs and captions of your own."""

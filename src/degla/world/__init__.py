"""The embedded world: drawn scenes with exact ground truth, and a small CLIP that was pre-trained on them."""

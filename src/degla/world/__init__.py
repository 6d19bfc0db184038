"""The embedded world: pictures with exact ground truth, and a small CLIP pre-trained on them that ships with the package.

In: a seed. Out: pairs to fine-tune on, benchmarks of composition and of recognition on disk (`draw`), and a model folder
that open_clip loads (`world_model_folder`). Contract: `draw.draw_pairs`, `draw.draw_benchmark`.
"""

"""Intervals and tests: what a number, and a difference of two, say about other questions, seeds, negatives and worlds.

proportions  draws of whole images and means in them; intervals of shares and of differences of two shares that do not
             collapse to a point in small samples; how far two readers agree beyond chance
seeds        means and differences over training seeds, their intervals together with that over questions; p-values,
             Holm's correction, and what a difference needs before it may be called one; how much a result owes to
             training seed, negatives' seed and world, and an interval over all

Sources of chance are kept apart. Items: another draw of questions from the same source; several questions about one
image are not independent, so images are drawn, not questions. Seeds: another run of the same training. What a page
prints covers both, and says what it leaves out.
"""

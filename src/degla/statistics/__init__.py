"""Intervals and tests: generalise scores and differences to other questions, seeds, negatives and worlds.

proportions  bootstrap over images; intervals of shares and of differences of two shares that do not collapse to a point
             in small samples; Cohen's kappa
seeds        means and differences over training seeds, with intervals over seeds and questions; p-values,
             Holm's correction, and the conditions for calling a difference significant; the variance of a result due to
             training seed, negatives' seed and world, and an interval over all of them

Sources of chance are kept apart. Items: another sample of questions from the same source; several questions about one
image are not independent, so images are drawn, not questions. Seeds: another run of the same training. Pages print
intervals that cover both, and say what they leave out.
"""

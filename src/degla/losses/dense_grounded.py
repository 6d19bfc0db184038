"""Dense image-grounded contrast: the tokens of a caption and of its own negatives against the patches of the image."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from degla.losses.core import Embeddings, Loss, LossValue, Processes, Target
from degla.losses.image_grounded import MissingNegative, calibrated_own_negatives_loss
from degla.ranges import Factor, Positive, Share


@dataclass(frozen=True)
class DenseGrounded(Loss):
    """Pull the caption's tokens to the patches that they attend to; push the tokens of its own negatives away.

    Formula:  mean_i - sum_c y_c (1 - q_c)^g log q_c,  q = softmax_c(S_i(t_i), S_i(n_i1), ..., S_i(n_iK))
              S_i(x) = log sum_l e^{s cos(z_l, x_l)},  z_l = sum_p a_lp u_p,  a_lp = r_lp / sum_p r_lp
              r_lp = (d_lp - min_p d_lp) / (max_p d_lp - min_p d_lp),  d_lp = <x_l, u_p> (no gradient)
              u: patches of image i, x_l: tokens after the start token of the caption t or of a valid negative n,
              s: `scale`, y: b / (1 + K_i) everywhere, plus 1 - b for the caption, b: `smoothing`, g: `focus`
    Shapes:   see Embeddings; returns a scalar, the mean over pairs that have a valid negative
    Scope:    local - each image is compared only with its caption and that caption's negatives; no gather
    Source:   FSC-CLIP, arXiv 2410.05210, local hard-negative loss with selective calibrated regularisation
    Differs:  the released code divides 0 by 0 where a token is equally near all patches (F-2 in docs/decisions), gives
              missing negatives the score 0 (F-1), and averages per process (F-3). Here such a token attends to all
              patches equally, missing negatives are left out (`missing="published"` gives them 0), and the mean is
              over all processes. The score is a sum over tokens, as published: of two texts that fit equally well, one
              with twice as many tokens scores log 2 higher (F-7), so negatives should be as long as their captions
    Cost:     the last block of both towers for all patches and tokens; a product [B, 1 + K, tokens, patches]
    """

    weight: Factor = 0.2
    """Weight of the loss, >= 0 (0.2 in arXiv 2410.05210; 0.5 there for ViT-B/16 and ViT-L/14)."""
    smoothing: Share = 0.02
    """Label smoothing: share of the target spread evenly, 0 to 1 (0.02 in arXiv 2410.05210)."""
    focus: Factor = 2.0
    """Focal exponent, with which confident rows count less, >= 0 (2 in arXiv 2410.05210)."""
    detach_attention: bool = True
    """Stop the gradient through the attention weights, as published; true or false."""
    least_spread: Positive = 1e-6
    """A token whose products with all patches differ by no more than this attends to all equally, > 0."""
    missing: MissingNegative = "left_out"
    """Missing negatives are left out, or are candidates with the score 0; "left_out" or "published"."""

    reads = frozenset({"patches", "tokens"})

    def value(self, student: Embeddings, teacher: Target, processes: Processes) -> LossValue:
        """Mean over the pairs of all processes that have a valid negative."""
        patch, valid = student.require("patch"), student.valid
        caption, negative = student.require("caption_token"), student.require("negative_token")
        token = torch.cat([caption[:, None], negative], dim=1)
        there = torch.cat(
            [student.require("caption_token_valid")[:, None], student.require("negative_token_valid")], dim=1
        )
        score = self._score(patch, token, there, student.scale)
        losses = calibrated_own_negatives_loss(
            score[:, 0], score[:, 1:], valid, smoothing=self.smoothing, focus=self.focus, missing=self.missing
        )
        return processes.mean(losses, valid.any(dim=1))

    def _score(
        self,
        patch: Float[Tensor, "batch patches dim"],
        token: Float[Tensor, "batch texts tokens dim"],
        there: Bool[Tensor, "batch texts tokens"],
        scale: Float[Tensor, ""],
    ) -> Float[Tensor, "batch texts"]:
        """Return how well each text fits the image; a text without tokens gets some finite score."""
        product = torch.einsum("bxld,bpd->bxlp", token, patch)
        if self.detach_attention:
            product = product.detach()
        low, high = product.amin(dim=-1, keepdim=True), product.amax(dim=-1, keepdim=True)
        spread = high - low
        flat = spread <= self.least_spread
        weight = torch.where(flat, torch.ones_like(product), (product - low) / spread.masked_fill(flat, 1.0))
        feature = torch.einsum("bxlp,bpd->bxld", weight / weight.sum(dim=-1, keepdim=True), patch)
        logits = scale * torch.nn.functional.cosine_similarity(feature, token, dim=-1)
        # A text without any token keeps finite logits; the caller leaves it out.
        logits = logits.masked_fill(~there & there.any(dim=-1, keepdim=True), -torch.inf)
        return logits.logsumexp(dim=-1)

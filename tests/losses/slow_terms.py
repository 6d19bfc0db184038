"""Every loss again, as slow loops over pairs and negatives, written from the formulas instead of the package.

Each function takes unit rows and returns the value, and says which leaves must get a gradient in this very batch.
Symbols: v image, t caption, n negative, y teacher, s scale; i, j, c run over pairs and k over negatives.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from degla.losses.core import Embeddings, Target

Answer = tuple[Tensor, set[str]]


def _dot(first: Tensor, second: Tensor) -> Tensor:
    return first.dot(second)


def _mean(values: list[Tensor], like: Tensor) -> Tensor:
    return torch.stack(values).mean() if values else like.new_zeros(())


def _cross_entropy(positive: Tensor, others: list[Tensor]) -> Tensor:
    """-log e^p / (e^p + sum e^o), with the exponentials written out."""
    return -(positive.exp() / torch.stack([positive, *others]).exp().sum()).log()


def contrastive(term: Any, student: Embeddings, teacher: Target, memory: Tensor) -> Answer:
    v, t, n, valid, s = student.image, student.caption, student.negative, student.valid, student.scale
    pairs, negatives = valid.shape
    rows = []
    met = False
    met_negative = False
    for i in range(pairs):
        others = []
        for j in range(pairs):
            same = term.mask_same_image and int(student.group[i]) == int(student.group[j])
            if j != i and not same:
                others.append(j)
        met = met or bool(others)
        to_texts = [s * _dot(v[i], t[j]) for j in others]
        for c in range(pairs):
            for k in range(negatives):
                meets = term.negative_scope == "batch" or (term.negative_scope == "own" and c == i)
                if meets and bool(valid[c, k]):
                    to_texts.append(s * _dot(v[i], n[c, k]))
                    met_negative = True
        positive = s * _dot(v[i], t[i])
        image_to_text = _cross_entropy(positive, to_texts)
        text_to_image = _cross_entropy(positive, [s * _dot(t[i], v[j]) for j in others])
        rows.append(image_to_text if term.queries == "images" else image_to_text / 2 + text_to_image / 2)
    moved = {"image", "caption", "scale"} if met or met_negative else set()
    return _mean(rows, s), moved | ({"negative"} if met_negative else set())


def _soft_plus(z: Tensor) -> Tensor:
    return (1 + z.exp()).log()


def sigmoid_contrastive(term: Any, student: Embeddings, teacher: Target, memory: Tensor) -> Answer:
    v, t, n, valid = student.image, student.caption, student.negative, student.valid
    s, b = student.scale, student.require("bias")
    pairs, negatives = valid.shape
    rows, moved = [], {"image", "caption", "scale", "bias"}
    for i in range(pairs):
        row = _soft_plus(-(s * _dot(v[i], t[i]) + b))
        for j in range(pairs):
            same = term.mask_same_image and int(student.group[i]) == int(student.group[j])
            if j != i and not same:
                row = row + _soft_plus(s * _dot(v[i], t[j]) + b)
        for c in range(pairs):
            for k in range(negatives):
                meets = term.negative_scope == "batch" or (term.negative_scope == "own" and c == i)
                if meets and bool(valid[c, k]):
                    row = row + term.negative_weight * _soft_plus(s * _dot(v[i], n[c, k]) + b)
                    moved.add("negative")
        rows.append(row)
    return _mean(rows, s), moved


def sigmoid_image_grounded(term: Any, student: Embeddings, teacher: Target, memory: Tensor) -> Answer:
    v, t, n, valid = student.image, student.caption, student.negative, student.valid
    s, b = student.scale, student.require("bias")
    rows = []
    for i in range(len(v)):
        own = [_soft_plus(s * _dot(v[i], n[i, k]) + b) for k in range(valid.shape[1]) if bool(valid[i, k])]
        if own:
            rows.append(_soft_plus(-(s * _dot(v[i], t[i]) + b)) + term.negative_weight * _mean(own, s))
    return _mean(rows, s), {"image", "caption", "negative", "scale", "bias"} if rows else set()


def sigmoid_text_grounded(term: Any, student: Embeddings, teacher: Target, memory: Tensor) -> Answer:
    t, n, valid, scale = student.caption, student.negative, student.valid, term.fixed_scale
    assert teacher.caption is not None
    pairs, negatives = valid.shape
    flat = [(c, k) for c in range(pairs) for k in range(negatives)]
    rows = []
    for i in range(pairs):
        met = [flat[i + m * pairs] if term.pairing == "published" else (i, m) for m in range(negatives)]
        there = [scale * _dot(t[i], n[c, k] - teacher.caption[i]) for c, k in met if bool(valid[c, k])]
        if there:
            rows.append(_mean([_soft_plus(z) for z in there], t))
    return _mean(rows, t), {"caption", "negative"} if rows else set()


def image_grounded(term: Any, student: Embeddings, teacher: Target, memory: Tensor) -> Answer:
    v, t, n, valid, s = student.image, student.caption, student.negative, student.valid, student.scale
    pairs, negatives = valid.shape
    rows = []
    for i in range(pairs):
        others = [s * _dot(v[i], n[i, k]) for k in range(negatives) if bool(valid[i, k])]
        if others:
            rows.append(_calibrated(s * _dot(v[i], t[i]), others, term=term, missing=negatives - len(others)))
    return _mean(rows, s), {"image", "caption", "negative", "scale"} if rows else set()


def _calibrated(positive: Tensor, others: list[Tensor], *, term: Any, missing: int) -> Tensor:
    """FSC-CLIP's row: every candidate's share, with its part of the smoothed target and its focal factor."""
    smoothing, focus = term.smoothing, term.focus
    exponentials = [logit.exp() for logit in (positive, *others)]
    total = sum(exponentials, torch.zeros_like(positive))
    if term.missing == "published":
        total = total + missing  # e^0 each
    loss = torch.zeros_like(positive)
    for place, each in enumerate(exponentials):
        share = each / total
        target = smoothing / len(exponentials) + (1 - smoothing if place == 0 else 0.0)
        loss = loss - target * (1 - share) ** focus * share.log()
    return loss


def own_hinge(term: Any, student: Embeddings, teacher: Target, memory: Tensor) -> Answer:
    v, t, n, valid = student.image, student.caption, student.negative, student.valid
    gaps = []
    active = False
    for i in range(valid.shape[0]):
        for k in range(valid.shape[1]):
            if bool(valid[i, k]):
                gap = term.margin + _dot(v[i], n[i, k]) - _dot(v[i], t[i])
                active = active or gap.item() > 0
                gaps.append(gap if gap.item() > 0 else 0 * gap)
    return _mean(gaps, v), {"image", "caption", "negative"} if active else set()


def hardest_hinge(term: Any, student: Embeddings, teacher: Target, memory: Tensor) -> Answer:
    v, t = student.image, student.caption
    pairs = v.shape[0]
    rows = []
    active = False
    for i in range(pairs):
        others = [
            j
            for j in range(pairs)
            if j != i and not (term.mask_same_image and int(student.group[i]) == int(student.group[j]))
        ]
        positive = _dot(v[i], t[i])
        texts = [_dot(v[i], t[j]) for j in others]
        images = [_dot(t[i], v[j]) for j in others]
        worst_text = max(texts, key=Tensor.item) if texts else v.new_tensor(-1.0)
        if memory[0].item() < term.mean_steps:
            worst_image = _mean([_dot(t[i], v[j]) for j in range(pairs)], v)
        else:
            worst_image = max(images, key=Tensor.item) if images else v.new_tensor(-1.0)
        row = torch.zeros((), dtype=v.dtype)
        for worst in (worst_text, worst_image):
            gap = term.margin + worst - positive
            if gap.item() > 0:
                row = row + gap
                # Alone in the batch, the mean of all images is the pair itself: a constant.
                is_itself = pairs == 1 and worst is worst_image and memory[0].item() < term.mean_steps
                active = active or not is_itself
        rows.append(row)
    return _mean(rows, v), {"image", "caption"} if active else set()


def logit_distillation(term: Any, student: Embeddings, teacher: Target, memory: Tensor) -> Answer:
    v, t, scale, temperature = student.image, student.caption, student.scale.detach(), term.temperature
    assert teacher.image is not None and teacher.caption is not None
    pairs = v.shape[0]

    def share(first: Tensor, second: Tensor, i: int) -> list[Tensor]:
        logits = [(scale * _dot(first[i], second[j]) / temperature).exp() for j in range(pairs)]
        total = sum(logits, torch.zeros_like(scale))
        return [logit / total for logit in logits]

    rows = []
    for i in range(pairs):
        row = torch.zeros((), dtype=v.dtype)
        for wanted, ours in (
            (share(teacher.image, teacher.caption, i), share(v, t, i)),
            (share(teacher.caption, teacher.image, i), share(t, v, i)),
        ):
            for target, value in zip(wanted, ours, strict=True):
                row = row - temperature**2 * target * value.log()
        rows.append(row)
    return _mean(rows, v), {"image", "caption"} if pairs > 1 else set()


def text_grounded(term: Any, student: Embeddings, teacher: Target, memory: Tensor) -> Answer:
    t, n, valid, scale = student.caption, student.negative, student.valid, term.fixed_scale
    assert teacher.caption is not None
    pairs, negatives = valid.shape
    # The rows of the flattened negatives: caption 0's first, then caption 1's.
    flat = [(c, k) for c in range(pairs) for k in range(negatives)]
    rows = []
    for i in range(pairs):
        met = [(i, k) for k in range(negatives)]
        if term.pairing == "published":
            met = [flat[i + m * pairs] for m in range(negatives)]
        others = [scale * _dot(t[i], n[c, k]) for c, k in met if bool(valid[c, k])]
        if others:
            rows.append(_cross_entropy(scale * _dot(t[i], teacher.caption[i]), others))
    return _mean(rows, t), {"caption", "negative"} if rows else set()


def self_distillation(term: Any, student: Embeddings, teacher: Target, memory: Tensor) -> Answer:
    assert teacher.image is not None and teacher.caption is not None and teacher.negative is not None
    pairs, negatives = student.valid.shape
    images, texts = [], []
    moved = {"image", "caption"}
    for i in range(pairs):
        gap = student.image[i] - teacher.image[i]
        images.append(_dot(gap, gap))
        gap = student.caption[i] - teacher.caption[i]
        texts.append(_dot(gap, gap))
        for k in range(negatives):
            if bool(student.valid[i, k]):
                gap = student.negative[i, k] - teacher.negative[i, k]
                texts.append(_dot(gap, gap))
                moved.add("negative")
    return term.image * _mean(images, student.image) + term.text * _mean(texts, student.image), moved


def intra_modal(term: Any, student: Embeddings, teacher: Target, memory: Tensor) -> Answer:
    v, t, n, valid, s = student.image, student.caption, student.negative, student.valid, student.scale
    pairs, negatives = valid.shape
    met = [(c, k) for c in range(pairs) for k in range(negatives) if bool(valid[c, k])]
    rows = []
    for i in range(pairs):
        logits = [s * _dot(t[i], n[c, k]) for c, k in met]
        if term.target == "correct":
            rows.append(_cross_entropy(s * _dot(v[i], t[i]), logits))
        elif logits:
            rows.append(_cross_entropy(logits[0], logits[1:]))
    if term.target == "correct":
        return _mean(rows, s), {"image", "caption", "negative", "scale"} if met else set()
    return _mean(rows, s), {"caption", "negative", "scale"} if len(met) > 1 else set()


def cross_modal_rank(term: Any, student: Embeddings, teacher: Target, memory: Tensor) -> Answer:
    v, t, n, valid, s = student.image, student.caption, student.negative, student.valid, student.scale
    pairs, negatives = valid.shape
    gaps = []
    active = False
    for i in range(pairs):
        for k in range(negatives):
            if bool(valid[i, k]):
                gap = memory[int(student.rule[i, k])] + s * _dot(v[i], n[i, k]) - s * _dot(v[i], t[i])
                above = gap.item() > 0
                active = active or above
                gaps.append(gap if above else 0 * gap)
    if term.reduction == "all":
        gaps += [s.new_zeros(())] * (pairs * negatives - len(gaps))
    return _mean(gaps, s), {"image", "caption", "negative", "scale"} if active else set()


def next_thresholds(term: Any, student: Embeddings, memory: Tensor) -> list[float]:
    """The thresholds of the next step: mean positive of all rows minus mean valid negative of the rule, clamped; or a
    fifth of the largest difference; or the old ones."""
    if term.threshold == "fixed":
        return list(memory.tolist())
    s = student.scale.item()
    pairs, negatives = student.valid.shape
    positive = sum(s * _dot(student.image[i], student.caption[i]).item() for i in range(pairs)) / pairs
    thresholds = []
    for rule, old in enumerate(memory.tolist()):
        of_rule = [
            s * _dot(student.image[i], student.negative[i, k]).item()
            for i in range(pairs)
            for k in range(negatives)
            if bool(student.valid[i, k]) and int(student.rule[i, k]) == rule
        ]
        gap = positive - sum(of_rule) / len(of_rule) if of_rule else old
        if term.threshold == "max" and of_rule:
            gap = max(
                s * _dot(student.image[i], student.caption[i] - student.negative[i, k]).item() / 5
                for i in range(pairs)
                for k in range(negatives)
                if bool(student.valid[i, k]) and int(student.rule[i, k]) == rule
            )
        thresholds.append(min(max(gap, 0.0), term.upper) if of_rule else old)
    return thresholds


def distractor_contrastive(term: Any, student: Embeddings, teacher: Target, memory: Tensor) -> Answer:
    w, u, t, s = student.extra["distractor_image"], student.extra["distractor_caption"], student.caption, student.scale
    pairs = t.shape[0]
    there = [i for i in range(pairs) if bool(student.extra["distractor_valid"][i])]
    rows = []
    for i in there:
        texts = [s * _dot(w[i], u[j]) for j in there if j != i] + [s * _dot(w[i], t[j]) for j in range(pairs)]
        images = [s * _dot(u[i], w[j]) for j in there if j != i]
        right = s * _dot(w[i], u[i])
        rows.append(_cross_entropy(right, texts) / 2 + _cross_entropy(right, images) / 2)
    return _mean(rows, s), {"distractor_image", "distractor_caption", "caption", "scale"} if rows else set()


def distractor(term: Any, student: Embeddings, teacher: Target, memory: Tensor) -> Answer:
    v, t, w, u, s = (
        student.image,
        student.caption,
        student.extra["distractor_image"],
        student.extra["distractor_caption"],
        student.scale,
    )
    pairs = t.shape[0]
    there = [i for i in range(pairs) if bool(student.extra["distractor_valid"][i])]
    first, second, third = [], [], []
    for i in range(pairs):
        right = s * _dot(v[i], t[i])
        texts = [s * _dot(v[i], t[j]) for j in range(pairs) if j != i] + [s * _dot(v[i], u[j]) for j in there]
        images = [s * _dot(t[i], v[j]) for j in range(pairs) if j != i] + [s * _dot(t[i], w[j]) for j in there]
        first.append(_cross_entropy(right, texts))
        second.append(_cross_entropy(right, images))
        if i in there:
            others = [s * _dot(w[i], u[j]) for j in there if j != i] + [s * _dot(w[i], t[j]) for j in range(pairs)]
            third.append(_cross_entropy(s * _dot(w[i], u[i]), others))
    value = term.image * _mean(first, s) + term.caption * _mean(second, s) + term.distractor * _mean(third, s)
    moved = {"image", "caption", "scale"} if pairs > 1 or there else set()
    return value, moved | ({"distractor_image", "distractor_caption"} if there else set())


def text_contrast(term: Any, student: Embeddings, teacher: Target, memory: Tensor) -> Answer:
    v, t, r, there, s = (
        student.image,
        student.caption,
        student.extra["positive"],
        student.extra["positive_valid"],
        student.scale,
    )
    assert r is not None and there is not None
    pairs, positives = there.shape
    rows = []
    met = False
    for i in range(pairs):
        for p in range(positives):
            if not bool(there[i, p]):
                continue
            rivals = [
                j
                for j in range(pairs)
                if j != i and not (term.mask_same_image and int(student.group[i]) == int(student.group[j]))
            ]
            if term.anchor == "positive":  # Its caption among the captions of all rows, whatever positives those have.
                met = met or bool(rivals)
                rows.append(_cross_entropy(s * _dot(r[i, p], t[i]), [s * _dot(r[i, p], t[j]) for j in rivals]))
                continue
            others = [(j, q) for j in rivals for q in range(positives) if bool(there[j, q])]
            met = met or bool(others)
            row = torch.zeros((), dtype=t.dtype)
            queries = {"caption": [t], "image": [v], "both": [t, v]}[term.anchor]
            for query in queries:
                logits = [s * _dot(query[i], r[j, q]) for j, q in others]
                row = row + _cross_entropy(s * _dot(query[i], r[i, p]), logits) / len(queries)
            rows.append(row)
    anchors = {"image": {"image"}, "both": {"caption", "image"}}.get(term.anchor, {"caption"})
    return _mean(rows, s), anchors | {"positive", "scale"} if met else set()


def text_pull(term: Any, student: Embeddings, teacher: Target, memory: Tensor) -> Answer:
    t, r, there = student.caption, student.extra["positive"], student.extra["positive_valid"]
    assert r is not None and there is not None
    rows = []
    for i in range(there.shape[0]):
        for p in range(there.shape[1]):
            if bool(there[i, p]) and (p == 0 or term.positives == "all"):
                gap = t[i] - r[i, p]
                rows.append(_dot(gap, gap))
    return _mean(rows, t), {"caption", "positive"} if rows else set()


def unit_contrast(term: Any, student: Embeddings, teacher: Target, memory: Tensor) -> Answer:
    v, u, f, s = student.image, student.extra["unit"], student.extra["foil"], student.scale
    there, foiled, text = (student.extra[name] for name in ("unit_valid", "foil_valid", "unit_group"))
    pairs, places = there.shape
    total, moved = torch.zeros_like(s), set[str]()
    for p in range(places):
        rows = []
        for i in (i for i in range(pairs) if bool(there[i, p])):
            others = [
                j
                for j in range(pairs)
                if j != i
                and bool(there[j, p])
                and not (term.mask_same_text and int(text[i, p]) == int(text[j, p]))
                and not (term.mask_same_image and int(student.group[i]) == int(student.group[j]))
            ]
            foil = [s * _dot(v[i], f[i, p])] if bool(foiled[i, p]) else []
            right = s * _dot(v[i], u[i, p])
            from_image = _cross_entropy(right, [s * _dot(v[i], u[j, p]) for j in others] + foil)
            from_unit = _cross_entropy(right, [s * _dot(v[j], u[i, p]) for j in others])
            rows.append((from_image + from_unit) / 2)
            moved |= {"image", "unit", "scale"} if others or foil else set()
            moved |= {"foil"} if foil else set()
        total = total + _mean(rows, s) / places
    return total, moved


def concept_sigmoid(term: Any, student: Embeddings, teacher: Target, memory: Tensor) -> Answer:
    v, c, s, b = student.image, student.extra["concept"], student.scale, student.extra["bias"]
    there, concept_group = student.extra["concept_valid"], student.extra["concept_group"]
    pairs, most = there.shape
    total, moved, count = torch.zeros_like(s), set[str](), int(there.sum())
    for i in range(pairs):
        own = {int(concept_group[i, m]) for m in range(most) if bool(there[i, m])}
        for j in range(pairs):
            for m in (m for m in range(most) if bool(there[j, m])):
                z = s * _dot(v[i], c[j, m]) + b
                same_text = term.mask_same_text and int(concept_group[j, m]) in own
                same_image = term.mask_same_image and int(student.group[i]) == int(student.group[j])
                if i == j or not (same_text or same_image):
                    total = total + _soft_plus(-z if i == j else z)
                    moved = {"image", "concept", "scale", "bias"}
    return total / max(count, 1), moved


def concept_attention(term: Any, student: Embeddings, teacher: Target, memory: Tensor) -> Answer:
    patch, c, s, b = student.extra["patch"], student.extra["concept"], student.scale, student.extra["bias"]
    there = student.extra["concept_valid"]
    pairs, most = there.shape
    total, moved = torch.zeros_like(s), set[str]()
    for i in range(pairs):
        patches = [each / each.norm() for each in patch[i].unbind()]
        for j in range(pairs):
            for m in (m for m in range(most) if bool(there[j, m])):
                weights = [_dot(c[j, m], each).exp() for each in patches]
                feature = sum((w * each for w, each in zip(weights, patches, strict=True)), torch.zeros_like(c[j, m]))
                z = s * _dot(feature / feature.norm(), c[j, m]) + b
                total = total + _soft_plus(-z if i == j else z)
                moved = {"patch", "concept", "scale", "bias"}
    return total / max(int(there.sum()), 1), moved


def positive_contrast(term: Any, student: Embeddings, teacher: Target, memory: Tensor) -> Answer:
    v, r, there, s = student.image, student.extra["positive"], student.extra["positive_valid"], student.scale
    pairs, places = there.shape
    total, moved = torch.zeros_like(s), set[str]()
    for p in range(places):
        rows = []
        for i in (i for i in range(pairs) if bool(there[i, p])):
            others = [
                j
                for j in range(pairs)
                if j != i
                and bool(there[j, p])
                and not (term.mask_same_image and int(student.group[i]) == int(student.group[j]))
            ]
            right = s * _dot(v[i], r[i, p])
            from_image = _cross_entropy(right, [s * _dot(v[i], r[j, p]) for j in others])
            from_text = _cross_entropy(right, [s * _dot(v[j], r[i, p]) for j in others])
            rows.append((from_image + from_text) / 2)
            moved |= {"image", "positive", "scale"} if others else set()
        total = total + _mean(rows, s) / places
    return total, moved


def positive_grounded(term: Any, student: Embeddings, teacher: Target, memory: Tensor) -> Answer:
    v, r, n, s = student.image, student.extra["positive"], student.negative, student.scale
    there, valid = student.extra["positive_valid"], student.valid
    rows = []
    for i in range(there.shape[0]):
        others = [s * _dot(v[i], n[i, k]) for k in range(valid.shape[1]) if bool(valid[i, k])]
        for p in range(there.shape[1]):
            if others and bool(there[i, p]):
                rows.append(_cross_entropy(s * _dot(v[i], r[i, p]), others))
    return _mean(rows, s), {"image", "positive", "negative", "scale"} if rows else set()


def class_contrast(term: Any, student: Embeddings, teacher: Target, memory: Tensor) -> Answer:
    v, classes, label, s = student.image, student.extra["classes"], student.extra["label"], student.scale
    assert classes is not None and label is not None
    rows = []
    for i in range(v.shape[0]):
        if int(label[i]) < 0:
            continue
        exponentials = [(s * _dot(v[i], each)).exp() for each in classes.unbind()]
        total = sum(exponentials, torch.zeros_like(s))
        row = torch.zeros_like(s)
        for number, each in enumerate(exponentials):
            wanted = term.smoothing / len(exponentials) + (1 - term.smoothing if number == int(label[i]) else 0.0)
            row = row - wanted * (each / total).log()
        rows.append(row)
    return _mean(rows, s), {"image", "classes", "scale"} if rows else set()


def soft_alignment(term: Any, student: Embeddings, teacher: Target, memory: Tensor) -> Answer:
    v, t, s, text = student.image, student.caption, student.scale, student.extra["text_group"]
    assert text is not None
    pairs = t.shape[0]
    rows = []
    for i in range(pairs):
        equal = [int(text[i]) == int(text[j]) for j in range(pairs)]
        row = torch.zeros_like(s)
        for query, keys in ((v[i], t), (t[i], v)):
            exponentials = [(s * _dot(query, keys[j])).exp() for j in range(pairs)]
            total = sum(exponentials, torch.zeros_like(s))
            for j in range(pairs):
                wanted = term.smoothing / pairs + ((1 - term.smoothing) / sum(equal) if equal[j] else 0.0)
                row = row - wanted * (exponentials[j] / total).log()
        rows.append(row)
    # If all texts are the same and nothing is smoothed, the targets are uniform but the rows need not be.
    return _mean(rows, s), {"image", "caption", "scale"} if pairs > 1 else set()


def contextual_contrast(term: Any, student: Embeddings, teacher: Target, memory: Tensor) -> Answer:
    v, s, valid = student.image, student.scale, student.valid
    y, n = teacher.require("caption"), teacher.require("negative")
    pairs, negatives = valid.shape

    def allowed(i: int, j: int) -> bool:
        likeness = float(_dot(y[i], y[j]))
        to_own = [float(_dot(y[other], n[one, k])) for one, other in ((i, j), (j, i)) for k in range(negatives)
                  if valid[one, k]]  # fmt: skip
        return i != j and likeness >= term.least and all(likeness > each for each in to_own)

    joined = [[0.0] * pairs for _ in range(pairs)]
    for i in range(pairs):
        candidates = [j for j in range(pairs) if allowed(i, j)]
        for j in sorted(candidates, key=lambda j, i=i: -float(_dot(y[i], y[j])))[: term.neighbours]:
            joined[i][j] = joined[j][i] = 1.0
    degree = [1 + sum(row) for row in joined]
    rows = list(y.unbind())
    for _ in range(term.scope):
        before = rows
        rows = [
            sum(
                (before[j] * (joined[i][j] + (i == j)) / (degree[i] * degree[j]) ** 0.5 for j in range(pairs)),
                torch.zeros_like(before[0]),
            )
            for i in range(pairs)
        ]
    losses = []
    for i in range(pairs):
        c = rows[i] / rows[i].norm()
        losses.append(_cross_entropy(s * _dot(c, v[i]), [s * _dot(c, v[j]) for j in range(pairs) if j != i]))
    return _mean(losses, s), {"image", "scale"} if pairs > 1 else set()


def evidence_contrast(term: Any, student: Embeddings, teacher: Target, memory: Tensor) -> Answer:
    v, t, n, s = student.image, student.caption, student.negative, student.scale
    m, there, teacher_part = (student.extra[f"evidence_{name}"] for name in ("image", "valid", "seen"))
    pairs, negatives = student.valid.shape
    y, z = teacher.require("caption"), teacher.require("negative")
    supports = [
        all(
            _dot(teacher_part[i], y[i]) > _dot(teacher_part[i], z[i, k])
            for k in range(negatives)
            if student.valid[i, k]
        )
        for i in range(pairs)
    ]
    backgrounds = [j for j in range(pairs) if there[j] and not supports[j]]
    rows, moved = [], {"image", "caption", "evidence_image", "scale"} if backgrounds else set()
    for i in range(pairs):
        row = torch.zeros((), dtype=s.dtype)
        own = [k for k in range(negatives) if student.valid[i, k]]
        if there[i] and supports[i]:
            away = [(s * (_dot(m[i], n[i, k]) - _dot(m[i], t[i]))).exp() for k in own]
            row = row + term.positive * (1 + sum(away, torch.zeros((), dtype=s.dtype))).log()
            moved |= {"evidence_image", "caption", "negative", "scale"} if own else set()
        over = sum(((s * _dot(t[i], m[j])).exp() for j in backgrounds), torch.zeros((), dtype=s.dtype))
        under = sum(((s * _dot(t[i], v[j])).exp() for j in range(pairs)), torch.zeros((), dtype=s.dtype))
        rows.append(row + term.background * (1 + over / under).log())
    return _mean(rows, s), moved


def view_contrast(term: Any, student: Embeddings, teacher: Target, memory: Tensor) -> Answer:
    v, z = student.image, teacher.require("image")
    rows = []
    for i in range(len(v)):
        others = [j for j in range(len(v)) if j != i]
        own = _dot(v[i], z[i]) / term.temperature
        forward = _cross_entropy(own, [_dot(v[i], z[j]) / term.temperature for j in others])
        back = _cross_entropy(own, [_dot(v[j], z[i]) / term.temperature for j in others])
        rows.append(forward / 2 + back / 2)
    return _mean(rows, v), {"image"} if len(v) > 1 else set()


def dense_grounded(term: Any, student: Embeddings, teacher: Target, memory: Tensor) -> Answer:
    patch, valid, s = student.extra["patch"], student.valid, student.scale
    caption, negative = student.extra["caption_token"], student.extra["negative_token"]
    assert patch is not None and caption is not None and negative is not None

    def score(patches: Tensor, tokens: Tensor, there: Tensor) -> Tensor:
        total = torch.zeros_like(s)
        for token, counts in zip(tokens.unbind(), there.tolist(), strict=True):
            if not counts:
                continue
            products = [(token * each).sum() for each in patches.unbind()]
            if term.detach_attention:
                products = [product.detach() for product in products]
            low, high = min(products, key=Tensor.item), max(products, key=Tensor.item)
            parts = [(product - low) / (high - low) for product in products]
            whole = sum(parts, torch.zeros_like(s))
            feature = torch.zeros_like(token)
            for part, each in zip(parts, patches.unbind(), strict=True):
                feature = feature + part / whole * each
            total = total + (s * (feature * token).sum() / feature.norm() / token.norm()).exp()
        return total.log()

    rows = []
    for i in range(valid.shape[0]):
        others = [
            score(patch[i], negative[i, k], student.extra["negative_token_valid"][i, k])
            for k in range(valid.shape[1])
            if bool(valid[i, k])
        ]
        if others:
            own = score(patch[i], caption[i], student.extra["caption_token_valid"][i])
            rows.append(_calibrated(own, others, term=term, missing=valid.shape[1] - len(others)))
    return _mean(rows, s), {"patch", "caption_token", "negative_token", "scale"} if rows else set()


def raw_distillation(term: Any, student: Embeddings, teacher: Target, memory: Tensor) -> Answer:
    f, y = student.extra["raw_image"], teacher.raw_image
    assert f is not None and y is not None
    rows = []
    for i in range(f.shape[0]):
        row = torch.zeros((), dtype=f.dtype)
        for d in range(f.shape[1]):
            row = row + (f[i, d] - y[i, d]) ** 2
        rows.append(row)
    return _mean(rows, f), {"raw_image"}


def token_reconstruction(term: Any, student: Embeddings, teacher: Target, memory: Tensor) -> Answer:
    losses, valid = student.extra["reconstruction"], student.extra["reconstruction_valid"]
    texts = [[losses[i, j] for j in range(valid.shape[1]) if bool(valid[i, j])] for i in range(len(valid))]
    texts = [text for text in texts if text]
    moved = {"reconstruction"} if texts else set[str]()
    if term.reduction == "token":
        return _mean([token for text in texts for token in text], student.scale), moved
    return _mean([_mean(text, student.scale) for text in texts], student.scale), moved


def masked_text(term: Any, student: Embeddings, teacher: Target, memory: Tensor) -> Answer:
    losses, valid = student.extra["prediction"], student.extra["prediction_valid"]
    texts = [[losses[i, q] for q in range(valid.shape[1]) if bool(valid[i, q])] for i in range(len(valid))]
    texts = [text for text in texts if text]
    return _mean([_mean(text, student.scale) for text in texts], student.scale), {"prediction"} if texts else set()


def masked_contrast(term: Any, student: Embeddings, teacher: Target, memory: Tensor) -> Answer:
    v, t, m, s = student.image, student.caption, student.extra["masked"], student.scale
    there = [bool(each) for each in student.extra["masked_valid"]]
    pairs, twins = range(len(there)), [i for i, each in enumerate(there) if each]
    rows = list(m.unbind())
    if term.missing == "published":
        rows, twins = [m[i] if there[i] else t[i] for i in pairs], list(pairs)

    def find(query: Tensor, i: int, *lists: list[Tensor]) -> Tensor:
        others = [s * _dot(query, each) for n, some in enumerate(lists) for j, each in enumerate(some) if n or j != i]
        return _cross_entropy(s * _dot(query, lists[0][i]), others)

    images, captions = list(v.unbind()), list(t.unbind())
    of_images = _mean([find(v[i], i, captions, [rows[j] for j in twins]) for i in pairs], s)
    texts = [find(t[i], i, images) for i in pairs] + [find(rows[i], i, images) for i in twins]
    to_caption = [find(rows[i], i, captions) for i in twins]
    there_alone = [rows[j] for j in twins]
    to_twin = [find(t[i], twins.index(i), there_alone) for i in twins]
    value = (of_images + _mean(texts, s)) / 2 + term.text * (_mean(to_caption, s) + _mean(to_twin, s)) / 2
    moved = {"image", "caption", "scale"} if len(there) > 1 or any(there) else set()
    return value, moved | ({"masked"} if any(there) else set())

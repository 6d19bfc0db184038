"""Training of FREE and its f-VAEGAN, and classification of their features over all classes."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from degla.errors import DeglaError
from degla.systems.free.data import ZeroShotData
from degla.systems.free.networks import (
    FeatureMaker,
    Other,
    Refined,
    Refiner,
    ResidualAdapter,
    class_accuracy,
    cycle_loss,
    gradient_penalty,
    harmonic_mean,
    margin_loss,
    variational_loss,
)
from degla.systems.free.settings import FreeSettings
from degla.systems.learning import batches, take_step


class FreeModel(nn.Module):
    """All trained modules; without a refiner it is an f-VAEGAN."""

    def __init__(self, data: ZeroShotData, hidden: int, *, refines: bool, residual: bool = False) -> None:
        super().__init__()
        features, semantics = data.features.shape[1], data.semantics.shape[1]
        self.maker = FeatureMaker(features, semantics, hidden)
        kind = ResidualAdapter if residual else Refiner
        self.refiner: Refiner | ResidualAdapter | None = kind(features, semantics, hidden) if refines else None


def train_free(
    data: ZeroShotData, settings: FreeSettings, *, model: FreeModel, trains_refiner: bool = True,
    choice: Other = "random",
) -> FreeModel:  # fmt: skip
    """Train on the rows of seen classes, with torch's generator.

    Args:
        data: scaled data.
        settings: training settings.
        model: untrained model.
        trains_refiner: if false, the refiner stays untrained: the same number of features without FREE's losses.
        choice: from which other class's centre a feature is pushed.
    """
    taught = model.refiner if trains_refiner else None
    centres = nn.Parameter(torch.randn(len(data.seen), data.semantics.shape[1]))
    if isinstance(taught, ResidualAdapter):  # Features start unchanged, and so do their centres.
        centres = nn.Parameter(class_means(data.features[data.train], data.label[data.train], data.seen))
    steps = _Steps(model, taught, centres, settings, choice)
    for some in batches(len(data.train), settings.batch, epochs=settings.epochs):
        rows = data.train[some]
        label = data.label[rows]
        steps.take(data.features[rows], data.semantics[label], torch.searchsorted(data.seen, label))
    return model.eval()


class _Steps:
    """One optimiser for each network, and the steps that they take in turn."""

    def __init__(
        self, model: FreeModel, refiner: nn.Module | None, centres: nn.Parameter, settings: FreeSettings, choice: Other
    ) -> None:
        self.model, self.refiner, self.centres, self.settings, self.choice = model, refiner, centres, settings, choice
        maker = model.maker
        self.critic = self._adam([*maker.critic.parameters()])
        self.generator = self._adam([*maker.encoder.parameters(), *maker.generator.parameters()])
        self.refinement = None if refiner is None else self._adam([*refiner.parameters(), centres])

    def _adam(self, parameters: list[nn.Parameter]) -> torch.optim.Adam:
        return torch.optim.Adam(parameters, lr=self.settings.lr, betas=(0.5, 0.999))

    def take(self, rows: Tensor, semantics: Tensor, label: Tensor) -> None:
        """Take all steps of one batch."""
        for _ in range(self.settings.critic_steps):
            if self.refiner is not None and self.refinement is not None:
                take_step(self.refine(self.refiner, rows, semantics, label), self.refinement)
            take_step(self.criticise(rows, semantics), self.critic)
        both = [self.generator] if self.refinement is None else [self.generator, self.refinement]
        take_step(self.make(rows, semantics), *both)

    def refine(self, refiner: nn.Module, rows: Tensor, semantics: Tensor, label: Tensor) -> Tensor:
        """Return the loss of centres and consistency on real features. Centres move only by this gradient."""
        settings, output = self.settings, refiner(rows)
        apart = margin_loss(
            output.mean, label, self.centres, margin=settings.margin, balance=settings.balance, choice=self.choice
        )
        return settings.centre * apart + settings.cycle * cycle_loss(output.semantics, semantics)

    def criticise(self, rows: Tensor, semantics: Tensor) -> Tensor:
        """Return the loss of WGAN-GP's critic."""
        maker, settings = self.model.maker, self.settings
        with torch.no_grad():
            generated = maker.generate(torch.randn_like(semantics), semantics)
        worth = maker.judge(rows, semantics).mean() - maker.judge(generated, semantics).mean()
        return settings.gan * (
            settings.penalty * gradient_penalty(lambda between: maker.judge(between, semantics), rows, generated)
            - worth
        )

    def make(self, rows: Tensor, semantics: Tensor) -> Tensor:
        """Return the generator's loss: VAE, critic, and consistency of generated features."""
        maker, settings = self.model.maker, self.settings
        reconstruction, mean, log_variance = maker.reconstruct(rows, semantics)
        if not bool(reconstruction.isfinite().all()):
            raise DeglaError("free: the generated features are not finite. Lower --lr.")
        loss = variational_loss(reconstruction, rows, mean, log_variance)
        generated = maker.generate(torch.randn_like(semantics), semantics)
        loss = loss - settings.gan * maker.judge(generated, semantics).mean()
        if self.refiner is not None:
            loss = loss + settings.cycle * cycle_loss(self.refiner(generated).semantics, semantics)
        return loss


def score_rows(predictions: Int[Tensor, " rows"], data: ZeroShotData) -> dict[str, float]:
    """Score predicted classes by mean accuracy over classes, 0 to 1: "seen", "unseen", "harmonic"."""
    seen, unseen = (class_accuracy(predictions[rows], data.label[rows]) for rows in (data.test_seen, data.test_unseen))
    return {"seen": seen, "unseen": unseen, "harmonic": harmonic_mean(seen, unseen)}


def classify(model: FreeModel, data: ZeroShotData, settings: FreeSettings) -> Int[Tensor, " rows"]:
    """Predict classes with one softmax over all, trained on real rows of seen and generated ones of unseen classes.

    If the model has a refiner, every row, real or generated, is replaced by [x; h; a^].
    """
    rows, label, everything = _to_learn_by(model, data, settings)
    weight, bias = fit_softmax(rows, label, classes=len(data.semantics))
    return (everything @ weight + bias + _allowed(data)).argmax(dim=1)


def by_prototypes(model: FreeModel, data: ZeroShotData, settings: FreeSettings) -> Int[Tensor, " rows"]:
    """Predict the class with the nearest mean of adapted rows, which are generated for unseen classes.

    Nothing is trained on generated rows, so nothing can learn to distinguish them from real ones.
    """
    rows, label, everything = _to_learn_by(model, data, settings)
    classes = torch.unique(label)
    predictions: Tensor = classes[torch.cdist(everything, class_means(rows, label, classes)).argmin(dim=1)]
    return predictions


def class_means(
    rows: Float[Tensor, "rows dim"], label: Int[Tensor, " rows"], classes: Int[Tensor, " classes"]
) -> Float[Tensor, "classes dim"]:
    """Return the mean of the rows of each class."""
    return torch.stack([rows[label == each].mean(dim=0) for each in classes])


@torch.no_grad()
def _to_learn_by(model: FreeModel, data: ZeroShotData, settings: FreeSettings) -> tuple[Tensor, Tensor, Tensor]:
    """Return refined training rows and rows generated for unseen classes, their classes, and all rows, refined."""
    label = data.unseen.repeat_interleave(settings.made_rows)
    semantics = data.semantics[label]
    rows = torch.cat([data.features[data.train], model.maker.generate(torch.randn_like(semantics), semantics)])
    return refined(model, rows), torch.cat([data.label[data.train], label]), refined(model, data.features)


def refined(model: FreeModel, rows: Float[Tensor, "rows features"]) -> Float[Tensor, "rows wide"]:
    """Return [x; h; a^] of each row, the adapted row, or only x; deterministic for each row."""
    if model.refiner is None:
        return rows
    output: Refined = model.refiner.eval()(rows)
    if isinstance(model.refiner, ResidualAdapter):
        return output.mean
    return torch.cat([rows, output.hidden, output.semantics], dim=1)


def fit_softmax(
    rows: Float[Tensor, "rows dim"], label: Int[Tensor, " rows"], *, classes: int
) -> tuple[Float[Tensor, "dim classes"], Float[Tensor, " classes"]]:
    """Return weight and bias after 60 epochs of Adam with learning rate 0.01, on batches of 512."""
    weight = torch.zeros(rows.shape[1], classes, requires_grad=True)
    bias = torch.zeros(classes, requires_grad=True)
    optimiser = torch.optim.Adam([weight, bias], lr=1e-2)
    for some in batches(len(rows), 512, epochs=60):
        take_step(cross_entropy(rows[some] @ weight + bias, label[some]), optimiser)
    return weight.detach(), bias.detach()


def linear_map(data: ZeroShotData) -> Int[Tensor, " rows"]:
    """Predict classes without generated features: ridge regression (1) to semantics, then the nearest by cosine."""
    rows, semantics = data.features[data.train], data.semantics[data.label[data.train]]
    middle, centre = rows.mean(dim=0), semantics.mean(dim=0)
    square = (rows - middle).T @ (rows - middle) + torch.eye(rows.shape[1])
    back = torch.linalg.solve(square, (rows - middle).T @ (semantics - centre))
    return _nearest((data.features - middle) @ back + centre, data)


def nearest_semantics(data: ZeroShotData) -> Int[Tensor, " rows"] | None:
    """Predict classes by the cosine of features with semantics, as CLIP does; None if their sizes differ.

    Args:
        data: unscaled data.
    """
    return _nearest(data.features, data) if data.features.shape[1] == data.semantics.shape[1] else None


def _nearest(rows: Float[Tensor, "rows semantics"], data: ZeroShotData) -> Int[Tensor, " rows"]:
    # The length of a row itself does not change which class is nearest.
    return (rows @ torch.nn.functional.normalize(data.semantics, dim=1).T + _allowed(data)).argmax(dim=1)


def _allowed(data: ZeroShotData) -> Float[Tensor, " classes"]:
    """Return 0 for classes that have rows, -inf for others."""
    return torch.full((len(data.semantics),), -torch.inf).index_fill(0, torch.cat([data.seen, data.unseen]), 0.0)

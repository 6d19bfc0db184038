"""Training of FREE and of the f-VAEGAN below it, and what a softmax over all classes makes of their features."""

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
from degla.systems.learning import take_step


class FreeModel(nn.Module):
    """Everything that training leaves; one without a refiner is an f-VAEGAN."""

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
    """Train on the rows of seen classes, by torch's generator.

    Args:
        data: scaled.
        settings: of the training.
        model: as it was made.
        trains_refiner: or it is left as it was made: the same number of features without what FREE teaches them.
        choice: which other class's centre a feature is pushed from.
    """
    taught = model.refiner if trains_refiner else None
    centres = nn.Parameter(torch.randn(len(data.seen), data.semantics.shape[1]))
    if isinstance(taught, ResidualAdapter):  # Features stay where they are at first, and so do their centres.
        centres = nn.Parameter(class_means(data.features[data.train], data.label[data.train], data.seen))
    steps = _Steps(model, taught, centres, settings, choice)
    for _ in range(settings.epochs):
        for rows in torch.split(data.train[torch.randperm(len(data.train))], settings.batch):
            label = data.label[rows]
            steps.take(data.features[rows], data.semantics[label], torch.searchsorted(data.seen, label))
    return model.eval()


class _Steps:
    """One optimiser for each of the parties, and the steps that they take in turn."""

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

    def take(self, rows: Tensor, told: Tensor, label: Tensor) -> None:
        """All steps of one batch."""
        for _ in range(self.settings.critic_steps):
            if self.refiner is not None and self.refinement is not None:
                take_step(self.refine(self.refiner, rows, told, label), self.refinement)
            take_step(self.criticise(rows, told), self.critic)
        both = [self.generator] if self.refinement is None else [self.generator, self.refinement]
        take_step(self.make(rows, told), *both)

    def refine(self, refiner: nn.Module, rows: Tensor, told: Tensor, label: Tensor) -> Tensor:
        """Centres and consistency of real features. Centres move by this step's gradient alone."""
        settings, found = self.settings, refiner(rows)
        apart = margin_loss(
            found.mean, label, self.centres, margin=settings.margin, balance=settings.balance, choice=self.choice
        )
        return settings.centre * apart + settings.cycle * cycle_loss(found.semantics, told)

    def criticise(self, rows: Tensor, told: Tensor) -> Tensor:
        """WGAN-GP's critic."""
        maker, settings = self.model.maker, self.settings
        with torch.no_grad():
            made = maker.generate(torch.randn_like(told), told)
        worth = maker.judge(rows, told).mean() - maker.judge(made, told).mean()
        return settings.gan * (
            settings.penalty * gradient_penalty(lambda between: maker.judge(between, told), rows, made) - worth
        )

    def make(self, rows: Tensor, told: Tensor) -> Tensor:
        """VAE, the critic's opinion, and consistency of the features that are made."""
        maker, settings = self.model.maker, self.settings
        found, mean, log_variance = maker.reconstruct(rows, told)
        if not bool(found.isfinite().all()):
            raise DeglaError("free: what is trained gives features that are no finite numbers; lower --lr.")
        loss = variational_loss(found, rows, mean, log_variance)
        made = maker.generate(torch.randn_like(told), told)
        loss = loss - settings.gan * maker.judge(made, told).mean()
        if self.refiner is not None:
            loss = loss + settings.cycle * cycle_loss(self.refiner(made).semantics, told)
        return loss


def score_rows(found: Int[Tensor, " rows"], data: ZeroShotData) -> dict[str, float]:
    """Mean accuracy over classes among all classes, 0 to 1, of a class for each row: "seen", "unseen", "harmonic"."""
    seen, unseen = (class_accuracy(found[rows], data.label[rows]) for rows in (data.test_seen, data.test_unseen))
    return {"seen": seen, "unseen": unseen, "harmonic": harmonic_mean(seen, unseen)}


def classify(model: FreeModel, data: ZeroShotData, settings: FreeSettings) -> Int[Tensor, " rows"]:
    """A class for each row, by one softmax over all classes, trained on real rows of seen and made ones of unseen ones.

    Every row, real or made, is replaced by [x; h; a^] where the model refines.
    """
    known, label, everything = _to_learn_by(model, data, settings)
    weight, bias = fit_softmax(known, label, classes=len(data.semantics))
    return (everything @ weight + bias + _allowed(data)).argmax(dim=1)


def by_prototypes(model: FreeModel, data: ZeroShotData, settings: FreeSettings) -> Int[Tensor, " rows"]:
    """The class of the nearest prototype for each row: the mean of a class's adapted rows, made ones of unseen classes.

    Nothing is trained on made rows, so that nothing can learn to tell them from real ones.
    """
    known, label, everything = _to_learn_by(model, data, settings)
    classes = torch.unique(label)
    found: Tensor = classes[torch.cdist(everything, class_means(known, label, classes)).argmin(dim=1)]
    return found


def class_means(
    rows: Float[Tensor, "rows dim"], label: Int[Tensor, " rows"], classes: Int[Tensor, " classes"]
) -> Float[Tensor, "classes dim"]:
    """The mean of the rows of each class."""
    return torch.stack([rows[label == each].mean(dim=0) for each in classes])


@torch.no_grad()
def _to_learn_by(model: FreeModel, data: ZeroShotData, settings: FreeSettings) -> tuple[Tensor, Tensor, Tensor]:
    """Refined rows that are trained on and that are made for unseen classes, their classes, and all rows, refined."""
    label = data.unseen.repeat_interleave(settings.made_rows)
    told = data.semantics[label]
    rows = torch.cat([data.features[data.train], model.maker.generate(torch.randn_like(told), told)])
    return refined(model, rows), torch.cat([data.label[data.train], label]), refined(model, data.features)


def refined(model: FreeModel, rows: Float[Tensor, "rows features"]) -> Float[Tensor, "rows wide"]:
    """[x; h; a^] of each row, the adapted row, or x alone; the same for the same row, whatever is drawn."""
    if model.refiner is None:
        return rows
    found: Refined = model.refiner.eval()(rows)
    if isinstance(model.refiner, ResidualAdapter):
        return found.mean
    return torch.cat([rows, found.hidden, found.semantics], dim=1)


def fit_softmax(
    rows: Float[Tensor, "rows dim"], label: Int[Tensor, " rows"], *, classes: int
) -> tuple[Float[Tensor, "dim classes"], Float[Tensor, " classes"]]:
    """Weight and bias after 60 passes of Adam at the rate 0.01, on batches of 512."""
    weight = torch.zeros(rows.shape[1], classes, requires_grad=True)
    bias = torch.zeros(classes, requires_grad=True)
    optimiser = torch.optim.Adam([weight, bias], lr=1e-2)
    for _ in range(60):
        for some in torch.split(torch.randperm(len(rows)), 512):
            take_step(cross_entropy(rows[some] @ weight + bias, label[some]), optimiser)
    return weight.detach(), bias.detach()


def linear_map(data: ZeroShotData) -> Int[Tensor, " rows"]:
    """A class for each row without made features: ridge regression (1) to semantics, then the nearest by cosine."""
    rows, told = data.features[data.train], data.semantics[data.label[data.train]]
    middle, centre = rows.mean(dim=0), told.mean(dim=0)
    square = (rows - middle).T @ (rows - middle) + torch.eye(rows.shape[1])
    back = torch.linalg.solve(square, (rows - middle).T @ (told - centre))
    return _nearest((data.features - middle) @ back + centre, data)


def nearest_semantics(data: ZeroShotData) -> Int[Tensor, " rows"] | None:
    """A class for each row by the cosine of the row itself with semantics, as a CLIP does; None where a row has another
    number of entries.

    Args:
        data: not scaled.
    """
    return _nearest(data.features, data) if data.features.shape[1] == data.semantics.shape[1] else None


def _nearest(rows: Float[Tensor, "rows semantics"], data: ZeroShotData) -> Int[Tensor, " rows"]:
    # The length of a row itself does not change which class is nearest.
    return (rows @ torch.nn.functional.normalize(data.semantics, dim=1).T + _allowed(data)).argmax(dim=1)


def _allowed(data: ZeroShotData) -> Float[Tensor, " classes"]:
    """0 for classes that have rows, -inf for others."""
    return torch.full((len(data.semantics),), -torch.inf).index_fill(0, torch.cat([data.seen, data.unseen]), 0.0)

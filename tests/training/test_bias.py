"""A model of the sigmoid loss: evaluated, and refused by recipes that read its scale."""

from __future__ import annotations

from pathlib import Path

import pytest

from degla.errors import InputError
from degla.losses.core.objective import loss_class
from degla.model.load import load_encoder
from degla.shelf import LOSSES, RECIPES
from degla.training.loop import train
from tests.tiny import CAPTIONS, write_model
from tests.training.configs import tiny_config

Pairs = dict[str, Path]


@pytest.fixture(scope="module")
def siglip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny CLIP with a bias beside its scale."""
    return write_model(tmp_path_factory.mktemp("models") / "siglip", init_logit_bias=-10)


@pytest.mark.parametrize("recipe", sorted({*RECIPES.names()} - {"fare", "structure_clip"}))
def test_recipes_refuse_a_bias(recipe: str, siglip: Path, tiny_pairs: Pairs, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"siglip: has a logit_bias, as SigLIP .* read its scale.*be evaluated"):
        train(tiny_config(recipe, model=siglip, pairs=tiny_pairs, out=tmp_path / "run"))


@pytest.mark.parametrize("recipe", ["fare", "structure_clip"])
def test_what_reads_no_scale_trains_and_everything_evaluates(
    recipe: str, siglip: Path, tiny_pairs: Pairs, tmp_path: Path
) -> None:
    outcome = train(tiny_config(recipe, model=siglip, pairs=tiny_pairs, out=tmp_path / "run", steps=1))
    tuned = load_encoder(str(outcome.folder))
    assert tuned.clip.logit_bias.item() == -10
    assert tuned.encode_captions(tuned.tokenize(CAPTIONS)).isfinite().all()


def test_losses_say_truly_whether_they_read_the_scale() -> None:
    """What reads the scale takes the cosine of a pair for its logit, less the bias."""
    import inspect

    for name in LOSSES.names():
        source = inspect.getsource(inspect.getmodule(loss_class(name)) or object)
        assert loss_class(name).scaled == (".scale" in source), name

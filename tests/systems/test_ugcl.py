"""UGCL: propagation and loss by hand, scopes, the probe, graphs from files, and defects of the released code."""

from __future__ import annotations

import gzip
import math
import pickle
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix

from degla.errors import InputError
from degla.systems.learning import probe
from degla.systems.ugcl import SYSTEM
from degla.systems.ugcl.cases import (
    DECAYS,
    GraphEncoder,
    contextual_loss,
    embed,
    principal,
    probe_accuracy,
    train_encoder,
)
from degla.systems.ugcl.graph import (
    EMBEDDED,
    Graph,
    block_model,
    files_beside,
    normalised_adjacency,
    propagate,
    read_graph,
    row_normalised,
    undirected,
    wordnet,
)
from degla.systems.ugcl.settings import UgclSettings
from degla.verbs._training import read_flags
from tests.official import SHARED

PATH = torch.tensor([[0, 1], [1, 2]])
"""Three nodes in a row."""


def test_the_adjacency_of_a_path_by_hand() -> None:
    third, sixth = 1 / 3, 1 / math.sqrt(6)
    expected = torch.tensor([[0.5, sixth, 0], [sixth, third, sixth], [0, sixth, 0.5]])
    torch.testing.assert_close(normalised_adjacency(PATH, 3).to_dense(), expected)


def test_self_loops_are_added_once_and_edges_count_once_whatever_is_given() -> None:
    edges = torch.tensor([[0, 1, 1, 2, 1, 0], [1, 0, 1, 1, 2, 0]])
    assert undirected(edges).tolist() == PATH.tolist()
    torch.testing.assert_close(normalised_adjacency(edges, 3).to_dense(), normalised_adjacency(PATH, 3).to_dense())


def test_the_loss_of_three_nodes_by_hand() -> None:
    nodes = torch.tensor([[2.0, 0], [0, 3], [1, 1]], dtype=torch.double)
    contexts = torch.tensor([[0.0, 1], [0, 5], [-1, 1]], dtype=torch.double)
    half = math.sqrt(0.5)
    # Cosines of nodes: 0 and 1: 0; 0 and 2: half; 1 and 2: half. With contexts: 0, 1, 0.
    rows = [math.log(1 + math.exp(half)), math.log(1 + math.exp(half)) - 1, math.log(2 * math.exp(half))]
    assert contextual_loss(nodes, contexts).item() == pytest.approx(sum(rows) / 3, abs=1e-12)


def test_the_loss_of_a_path_with_its_contexts_by_hand() -> None:
    rows = torch.tensor([[1.0, 0], [0, 1], [1, 0]], dtype=torch.double)
    contexts = normalised_adjacency(PATH, 3).double() @ rows
    sixth, third = 1 / math.sqrt(6), 1 / 3
    ends, middle = 0.5 / math.hypot(0.5, sixth), third / math.hypot(third, 2 * sixth)
    expected = (2 * (math.log(1 + math.e) - ends) + math.log(2) - middle) / 3
    assert contextual_loss(rows, contexts).item() == pytest.approx(expected, abs=1e-7)


def test_the_gradient_of_the_loss_is_right() -> None:
    chance = torch.Generator().manual_seed(0)
    nodes, contexts = (torch.randn(4, 3, generator=chance, dtype=torch.double, requires_grad=True) for _ in range(2))
    assert torch.autograd.gradcheck(contextual_loss, (nodes, contexts))


@pytest.mark.parametrize("form", ["power", "binomial"])
def test_scope_zero_is_the_node_itself(form: str) -> None:
    rows = torch.randn(3, 2)
    assert torch.equal(propagate(normalised_adjacency(PATH, 3), rows, 0, form=form), rows)  # type: ignore[arg-type]


def test_forms_of_the_scope_and_what_is_given_stays() -> None:
    adjacency, rows = normalised_adjacency(PATH, 3), torch.randn(3, 2)
    original, dense = rows.clone(), normalised_adjacency(PATH, 3).to_dense()
    torch.testing.assert_close(propagate(adjacency, rows, 3), dense @ dense @ dense @ rows)
    # The released code adds to Z in place, which gives (I + A~)^n and overwrites Z.
    both = dense + torch.eye(3)
    torch.testing.assert_close(propagate(adjacency, rows, 2, form="binomial"), both @ both @ rows)
    assert torch.equal(rows, original)


@pytest.mark.parametrize("form", ["power", "binomial"])
def test_scopes_never_leave_a_component(form: str) -> None:
    edges = torch.tensor([[0, 1, 3], [1, 2, 4]])
    reach = propagate(normalised_adjacency(edges, 6), torch.eye(6), 20, form=form)  # type: ignore[arg-type]
    component = torch.tensor([0, 0, 0, 1, 1, 2])
    same = component[:, None] == component[None, :]
    assert (reach[same] > 0).all() and (reach[~same] == 0).all()


def _small(**changed: object) -> Graph:
    values: dict[str, object] = {
        "name": "small", "features": torch.eye(4), "edges": torch.tensor([[0, 2], [1, 3]]),
        "label": torch.tensor([0, 0, 1, 1]), "train": torch.tensor([0, 2]), "validation": torch.tensor([1]),
        "test": torch.tensor([3]),
    }  # fmt: skip
    return Graph(**{**values, **changed})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"label": torch.zeros(3, dtype=torch.long)}, "small: 3 labels for 4 nodes"),
        ({"features": torch.eye(4).index_fill(0, torch.tensor([2]), torch.nan)}, "node 2 has a feature that is not"),
        ({"edges": torch.tensor([[0], [4]])}, "an edge refers to node 4; nodes are 0 to 3"),
        ({"test": torch.tensor([], dtype=torch.long)}, "the test split is empty"),
        ({"test": torch.tensor([4])}, "the test split is empty or has nodes outside 0 to 3"),
        ({"label": torch.tensor([0, 0, 1, -1])}, "node 3 of the test split has no label"),
        ({"train": torch.tensor([0, 1]), "validation": torch.tensor([2])}, "the train split has only one class"),
        ({"label": torch.eye(4)}, "small: 4 x 4 labels for 4 nodes"),
        ({"edges": torch.tensor([[-1], [2]])}, "an edge refers to node -1; nodes are 0 to 3"),
        ({"test": torch.tensor([2, 3])}, "node 2 is in both train and test"),
        ({"validation": torch.tensor([1, 3])}, "node 3 is in both validation and test"),
        ({"validation": torch.tensor([0, 1])}, "node 0 is in both train and validation"),
    ],
)
def test_bad_graphs_are_refused_in_one_line(changed: dict[str, object], says: str) -> None:
    with pytest.raises(InputError, match=says) as error:
        _small(**changed)
    assert "\n" not in str(error.value)


def test_nodes_without_an_edge_are_reported() -> None:
    assert _small().isolated == 0 and _small(edges=torch.tensor([[0], [1]])).isolated == 2


def test_training_follows_the_seed_and_no_order_of_nodes() -> None:
    graph = block_model(seed=3, members=8, words=20, spoken=3, labelled=2)
    settings = UgclSettings(dim=6, epochs=3, sample=12)

    def trained(of: Graph, seed: int = 1) -> GraphEncoder:
        torch.manual_seed(seed)
        return train_encoder(of, settings, scope=2)

    before = GraphEncoder(20, 6).weight
    assert torch.equal(trained(graph).weight, trained(graph).weight)
    assert not torch.equal(trained(graph).weight, trained(graph, 2).weight) and before.shape == (20, 6)
    # Nodes are drawn from all, not from a window of numbers.
    torch.manual_seed(0)
    draws = torch.stack([torch.randperm(40)[:12] for _ in range(30)])
    assert draws.unique().numel() == 40 and (draws.max(dim=1).values - draws.min(dim=1).values > 12).all()


def test_only_drawn_nodes_are_compared_and_contexts_see_the_whole_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    graph, shapes, same = block_model(seed=3, members=8, words=20, spoken=3, labelled=2), [], []

    def noted(nodes: torch.Tensor, contexts: torch.Tensor) -> torch.Tensor:
        shapes.append((nodes.shape, contexts.shape))
        same.append(torch.equal(nodes, contexts))
        return contextual_loss(nodes, contexts)

    monkeypatch.setattr("degla.systems.ugcl.cases.contextual_loss", noted)
    train_encoder(graph, UgclSettings(dim=6, epochs=2, sample=12), scope=1)
    assert shapes == [((12, 6), (12, 6))] * 2
    train_encoder(graph, UgclSettings(dim=6, epochs=1), scope=0)
    assert not same[-1], "contexts are of an encoder of their own, also where they are the nodes themselves"


def test_rows_are_the_mean_of_a_node_and_its_surroundings() -> None:
    graph, encoder = _small(), GraphEncoder(4, 3)
    adjacency = normalised_adjacency(graph.edges, 4).to_dense()
    rows = encoder(adjacency, graph.features)
    torch.testing.assert_close(embed(encoder, graph, scope=2), ((rows + adjacency @ adjacency @ rows) / 2).detach())


def test_the_probe_chooses_on_validation_nodes_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = _small()
    with monkeypatch.context() as scripted:
        # One decay is right on the validation node (class 0) and wrong on the test node (class 1), all others opposite.
        scripted.setattr(
            "degla.systems.ugcl.cases.probe",
            lambda rows, label, *, classes, decay, scaled: torch.tensor(
                [[0.0, 0.0, 1.0], [0.0, 0.0, 0.0]] if 2 * decay == DECAYS[2] else [[0.0, 0.0, 0.0], [0.0, 0.0, 1.0]]
            ),
        )
        assert probe_accuracy(torch.ones(4, 2), graph) == {"test": 0.0, "validation": 1.0}
        # All are right on the validation node (class 0), and only the first is wrong on the test node.
        scripted.setattr(
            "degla.systems.ugcl.cases.probe",
            lambda rows, label, *, classes, decay, scaled: torch.tensor(
                [[0.0, 0.0, 0.0], [0.0, 2.0 * (decay > 0), -1]]
            ),
        )
        nodes = torch.tensor([[1.0, 0], [1, 0], [0, 1], [0, 1]])
        assert probe_accuracy(nodes, graph) == {"test": 0.0, "validation": 1.0}
    accuracy = probe_accuracy(torch.tensor([[1.0, 0], [1, 0], [0, 1], [0, 1]]), graph)
    assert accuracy == {"test": 1.0, "validation": 1.0}
    # Validation is wrong and test is right: the two accuracies are never swapped.
    assert probe_accuracy(torch.tensor([[1.0, 0], [0, 1], [0, 1], [0, 1]]), graph) == {"test": 1.0, "validation": 0.0}


def test_the_probe_reads_rows_of_mean_length_one(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    monkeypatch.setattr(
        "degla.systems.ugcl.cases.probe",
        lambda rows, label, **options: calls.append((rows, options)) or torch.zeros(2, 3),
    )
    # Lengths 2, 2, 4 and 8, whose mean is 4; class 0 is the default without information.
    accuracy = probe_accuracy(torch.tensor([[2.0, 0.0], [0.0, 2.0], [4.0, 0.0], [0.0, 8.0]]), _small())
    assert accuracy == {"test": 0.0, "validation": 1.0}
    rows, options = calls[0]
    assert rows.tolist() == [[0.5, 0.0], [1.0, 0.0]] and not options["scaled"]
    assert [options["decay"] for _, options in calls] == [decay / 2 for decay in DECAYS]


def test_each_method_has_its_own_rows_and_scope(monkeypatch: pytest.MonkeyPatch) -> None:
    # On a path, rows change with each hop; on pairs they would not.
    graph = _small(edges=torch.tensor([[0, 1, 2], [1, 2, 3]]))
    settings = UgclSettings(dim=4, epochs=1, scope=3)
    scopes = []
    monkeypatch.setattr(
        "degla.systems.ugcl.cases.train_encoder",
        lambda graph, settings, *, scope: scopes.append(scope) or GraphEncoder(graph.features.shape[1], 4),
    )
    monkeypatch.setattr("degla.systems.ugcl.cases.probe_accuracy", lambda rows, graph: {"rows": rows})
    models = {method: SYSTEM.train(settings, graph, method) for method in SYSTEM.methods}
    rows = {method: SYSTEM.measure(settings, graph, method, weights)["rows"] for method, weights in models.items()}
    assert scopes == [1, 3] and models["sgc"] == models["raw"] == {}
    adjacency = normalised_adjacency(graph.edges, len(graph.features))
    assert torch.equal(rows["raw"], graph.features)  # type: ignore[arg-type]
    torch.testing.assert_close(rows["sgc"], propagate(adjacency, graph.features, 4))
    for method, scope in (("untrained", 3), ("ugcl_near", 1), ("ugcl", 3)):
        encoder = GraphEncoder(graph.features.shape[1], 4)
        encoder.load_state_dict(dict(models[method]))
        torch.testing.assert_close(rows[method], embed(encoder, graph, scope=scope))


def test_training_moves_the_encoder_at_its_rate_and_by_the_form_of_its_contexts() -> None:
    def trained(**changed: object) -> torch.Tensor:
        torch.manual_seed(0)
        settings = UgclSettings(**({"dim": 4, "epochs": 1, "lr": 0.01} | changed))  # type: ignore[arg-type]
        path = _small(edges=torch.tensor([[0, 1, 2], [1, 2, 3]]))
        return train_encoder(path, settings, scope=2).weight.detach()

    assert (trained() - trained(epochs=0)).abs().max() == pytest.approx(0.01, rel=1e-2), "Adam's first step is its rate"
    assert not torch.equal(trained(epochs=5), trained(epochs=5, form="binomial"))


def test_the_scaled_regression_does_not_depend_on_the_unit_of_a_feature() -> None:
    rows, label = torch.tensor([[1.0, 0.3], [-1, 0.1], [0.5, -0.2], [-2, 0.9]]), torch.tensor([0, 1, 0, 1])
    unit = torch.tensor([1.0, 1e-3])
    slopes, smaller = (probe(each, label, classes=2)[:, :-1] for each in (rows, rows * unit))
    torch.testing.assert_close(smaller * unit, slopes)


def test_the_bias_of_the_regression_is_not_decayed() -> None:
    weights = probe(torch.zeros(4, 1), torch.tensor([0, 0, 0, 1]), classes=2, decay=10.0, scaled=False)
    assert float(weights[0, 1] - weights[1, 1]) == pytest.approx(math.log(3), abs=1e-4), "three of four are of class 0"


def test_weight_decay_shrinks_the_regression() -> None:
    rows, label = torch.tensor([[1.0], [-1.0]]), torch.tensor([0, 1])
    weights = [probe(rows, label, classes=2, decay=decay, scaled=False)[:, 0].norm().item() for decay in (0.005, 0.05)]
    assert weights == sorted(weights, reverse=True)
    # With half of the squares: 1 - p = w for the weight w of the right class less 0, by symmetry w = sigmoid(-2 w).
    weight = probe(rows, label, classes=2, decay=0.5, scaled=False)[0, 0].item()
    assert weight == pytest.approx(1 / (1 + math.exp(2 * weight)), abs=1e-4)


def _write_planetoid(folder: Path) -> None:
    """Two nodes trained, two more known, tests 5, 4 and 7, and 6 that the index leaves out; as Python 2 writes."""
    words = np.eye(3, dtype=np.float32)
    one_hot = np.eye(2, dtype=np.int32)
    parts = {
        "x": csr_matrix(words[:2]), "y": one_hot[:2],
        "allx": csr_matrix(np.stack([words[0], words[1], words[2], words[0] + words[1]])),
        "ally": one_hot[[0, 1, 1, 0]],
        "tx": csr_matrix(np.stack([words[2], words[0], words[1]])), "ty": one_hot[[1, 0, 1]],
        "graph": defaultdict(list, {0: [1, 0], 1: [0, 2, 2], 2: [1], 5: [7], 7: [5]}),
    }  # fmt: skip
    for part, value in parts.items():
        (folder / f"ind.small.{part}").write_bytes(pickle.dumps(value, protocol=2))
    (folder / "ind.small.test.index").write_text("5\n4\n7\n")


def test_planetoids_own_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _write_planetoid(tmp_path)
    graph = read_graph(tmp_path / "ind.small.x")
    assert {tmp_path / "ind.small.x", *files_beside(tmp_path / "ind.small.x")} == set(tmp_path.iterdir())
    assert graph.edges.tolist() == [[0, 1, 5], [1, 2, 7]]
    assert graph.label.tolist() == [0, 1, 1, 0, 0, 1, -1, 1]
    assert graph.features[[3, 4, 5, 6, 7]].tolist() == [[0.5, 0.5, 0], [1, 0, 0], [0, 0, 1], [0, 0, 0], [0, 1, 0]]
    assert (graph.train.tolist(), graph.validation.tolist(), graph.test.tolist()) == ([0, 1], [2, 3], [4, 5, 7])
    monkeypatch.setattr("degla.systems.ugcl.graph._VALIDATION", 1)
    assert read_graph(tmp_path / "ind.small.x").validation.tolist() == [2]


class _Harm:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return exec, ("print('harm done')",)  # Not print itself, which Ray replaces.


def test_a_pickle_that_names_a_program_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _write_planetoid(tmp_path)
    (tmp_path / "ind.small.graph").write_bytes(pickle.dumps(_Harm(), protocol=2))
    with pytest.raises(
        InputError, match=r"ind.small.graph: not a Planetoid file \(it refers to (builtins|__builtin__).exec"
    ):
        read_graph(tmp_path / "ind.small.x")
    assert capsys.readouterr().out == ""


def _arrays(**changed: object) -> dict[str, object]:
    rows = csr_matrix(np.eye(4, 5, dtype=np.float32) * 3)
    return {
        "indptr": rows.indptr, "indices": rows.indices, "data": rows.data, "shape": np.array(rows.shape),
        "label": np.array([0, 1, 1, 0], dtype=np.int16), "edges": np.array([[0, 1], [1, 2]], dtype=np.int32),
        "train": np.array([0, 1]), "val": np.array([3]), "test": np.array([2]), **changed,
    }  # fmt: skip


def test_arrays(tmp_path: Path) -> None:
    np.savez(tmp_path / "small.npz", **_arrays())  # type: ignore[arg-type]
    graph = read_graph(tmp_path / "small.npz")
    assert graph.name == "small" and graph.features.shape == (4, 5) and graph.features.sum() == 4
    assert graph.isolated == 1 and graph.classes == 2 and graph.edges.tolist() == [[0, 1], [1, 2]]


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"indptr": np.array([0, 1])}, "small.npz: cannot be read as arrays"),
        ({"label": np.array([0, 1])}, "small: 2 labels for 4 nodes"),
        ({"data": np.array([1, 1, np.inf, 1], dtype=np.float32)}, "small: node 2 has a feature"),
        ({"edges": np.zeros((2, 3), dtype=int)}, r"edges must be rows of two nodes, but have shape \(2, 3\)"),
        ({"edges": np.ones((8, 2), dtype=bool)}, "edges: must be integers, but has dtype bool"),
        ({"edges": np.array([[0, 0.5]])}, r"edges: entry \[0, 1\] is 0.5; it must be an integer"),
        ({"label": np.array([0, np.nan, 1, 1])}, r"label: entry \[1\] is nan"),
        ({"train": np.array(0)}, r"train: must be one row of numbers, but has shape \(\)"),
        ({"train": np.ones((4, 2), dtype=bool)}, r"train: must be one row of numbers, but has shape \(4, 2\)"),
        ({"shape": np.array(4.0)}, "small.npz: cannot be read as arrays"),
        ({"label": np.array(["a", "b", "b", "a"])}, "label: must be integers, but has dtype <U1"),
    ],
)
def test_bad_arrays_are_named(tmp_path: Path, changed: dict[str, object], says: str) -> None:
    np.savez(tmp_path / "small.npz", **_arrays(**changed))  # type: ignore[arg-type]
    with pytest.raises(InputError, match=says):
        read_graph(tmp_path / "small.npz")


def test_masks_are_splits_too(tmp_path: Path) -> None:
    masks = {"train": np.array([True, True, False, False]), "test": np.array([False, False, True, False])}
    np.savez(tmp_path / "small.npz", **_arrays(**masks))  # type: ignore[arg-type]
    graph = read_graph(tmp_path / "small.npz")
    assert (graph.train.tolist(), graph.test.tolist()) == ([0, 1], [2])


def test_two_classes_may_be_true_and_false(tmp_path: Path) -> None:
    np.savez(tmp_path / "small.npz", **_arrays(label=np.array([False, True, True, False])))  # type: ignore[arg-type]
    assert read_graph(tmp_path / "small.npz").label.tolist() == [0, 1, 1, 0]


def test_missing_and_damaged_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cora.npz: no such file or folder\. Use an \.npz"):
        read_graph(tmp_path / "cora.npz")
    with pytest.raises(InputError, match=r"not a graph\. Use an \.npz"):
        read_graph(tmp_path)
    np.savez(tmp_path / "some.npz", label=np.zeros(2))
    with pytest.raises(InputError, match=r"some.npz: 'indptr' is missing"):
        read_graph(tmp_path / "some.npz")
    (tmp_path / "some.npz").write_bytes((tmp_path / "some.npz").read_bytes()[:99])
    with pytest.raises(InputError, match=r"some.npz: cannot be read as arrays \(.*\)\. Download or recreate it"):
        read_graph(tmp_path / "some.npz")
    np.save(tmp_path / "some.npy", np.zeros(2))
    for content in ((tmp_path / "some.npy").read_bytes(), b"<!DOCTYPE html>"):
        (tmp_path / "some.npz").write_bytes(content)
        with pytest.raises(InputError, match=r"some.npz: cannot be read as arrays \(not an .npz archive, or cut off\)"):
            read_graph(tmp_path / "some.npz")
    (tmp_path / "ind.a.x").write_bytes(b"no pickle")
    with pytest.raises(InputError, match=r"ind.a.x: not a Planetoid file"):
        read_graph(tmp_path / "ind.a.x")
    _write_planetoid(tmp_path)
    (tmp_path / "ind.small.ty").unlink()
    with pytest.raises(InputError, match=r"ind.small.ty: cannot be read: No such file"):
        read_graph(tmp_path / "ind.small.x")


_OUTSIDE = csr_matrix(np.eye(4, 3, dtype=np.float32))
_OUTSIDE.indices[1] = 10**8  # scipy would write there


@pytest.mark.parametrize(
    ("part", "content"),
    [("allx", []), ("allx", _OUTSIDE), ("ally", np.zeros((2, 2))), ("graph", {0: 3}), ("y", None)],
)
def test_files_that_are_no_graph_together_are_reported(tmp_path: Path, part: str, content: object) -> None:
    _write_planetoid(tmp_path)
    (tmp_path / f"ind.small.{part}").write_bytes(pickle.dumps(content, protocol=2))
    with pytest.raises(InputError, match=r"ind.small.x: not a graph together with the files next to it"):
        read_graph(tmp_path / "ind.small.x")


@pytest.mark.parametrize("index", ["6\n5\n7\n", "3\n4\n7\n", "4\n5\n"])
def test_an_index_that_does_not_go_on_is_refused(tmp_path: Path, index: str) -> None:
    _write_planetoid(tmp_path)
    (tmp_path / "ind.small.test.index").write_text(index)
    with pytest.raises(InputError, match=r"test.index does not continue after the 4 rows of allx"):
        read_graph(tmp_path / "ind.small.x")


def test_a_graph_without_edges_and_an_empty_index(tmp_path: Path) -> None:
    _write_planetoid(tmp_path)
    (tmp_path / "ind.small.graph").write_bytes(pickle.dumps({}, protocol=2))
    assert read_graph(tmp_path / "ind.small.x").isolated == 8
    (tmp_path / "ind.small.test.index").write_text("")
    with pytest.raises(InputError, match=r"test.index: cannot be read as node numbers"):
        read_graph(tmp_path / "ind.small.x")


def test_tables_of_ogbn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw, parts = tmp_path / "arxiv" / "raw", tmp_path / "arxiv" / "split" / "time"
    tables = {
        raw / "edge.csv.gz": "0,1\n1,2\n2,1\n", raw / "node-feat.csv.gz": "1,-2\r0,0.5\r\n3,4\n1,1\n2,2\n",
        raw / "node-label.csv.gz": "0\n1\n1\nnan\n1\n", parts / "train.csv.gz": "0\n1\n", parts / "valid.csv.gz": "4\n",
        parts / "test.csv.gz": "2\n",
    }  # fmt: skip
    for path, text in tables.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gzip.compress(text.encode()))
    graph = read_graph(raw)
    assert files_beside(raw) == [tmp_path / "arxiv" / "split"] and files_beside(parts) == []
    assert graph.name == "arxiv" and graph.edges.tolist() == [[0, 1], [1, 2]]
    # Features of ogbn are embeddings, not words, so they are not normalised.
    assert graph.features.tolist() == [[1, -2], [0, 0.5], [3, 4], [1, 1], [2, 2]] and graph.label.tolist() == [
        0,
        1,
        1,
        -1,
        1,
    ]
    (raw / "edge.csv.gz").write_bytes(gzip.compress(b"0,1,7\n1,2,7\n"))
    with pytest.raises(InputError, match=r"edge.csv.gz: edges must be rows of two nodes, but have shape \(2, 3\)"):
        read_graph(raw)
    (parts / "test.csv.gz").write_bytes(gzip.compress(b"0,1\n2\n"))
    with pytest.raises(InputError, match=r"test.csv.gz: cannot be read as a table"):
        read_graph(raw)
    (parts / "test.csv.gz").write_bytes(b"no table")
    with pytest.raises(InputError, match=r"test.csv.gz: damaged gzip file: Not a gzipped file"):
        read_graph(raw)
    monkeypatch.setattr("degla.parse.LARGEST_FILE", 1000)
    (parts / "test.csv.gz").write_bytes(gzip.compress(bytes(10**5)))
    with pytest.raises(InputError, match=r"test.csv.gz: more than 1,000 bytes when unpacked\. Download or recreate it"):
        read_graph(raw)


def test_rows_of_words_sum_to_one() -> None:
    assert row_normalised(torch.tensor([[1.0, 3], [0, 0]])).tolist() == [[0.25, 0.75], [0, 0]]


def test_the_embedded_graph_is_what_it_says() -> None:
    graph = wordnet(seed=0)
    assert (len(graph.features), graph.classes, len(graph.train), len(graph.validation)) == (799, 8, 80, 80)
    assert graph.edges.shape == (2, 958) and torch.equal(undirected(graph.edges), graph.edges)
    same = graph.label[graph.edges[0]] == graph.label[graph.edges[1]]
    assert 0.94 < float(same.double().mean()) < 0.96
    assert sorted(torch.cat([graph.train, graph.validation, graph.test]).tolist()) == list(range(799))
    assert not torch.equal(graph.test, wordnet(seed=1).test) and torch.equal(graph.label, wordnet(seed=1).label)
    assert torch.equal(SYSTEM.read(SYSTEM.settings, "wordnet", 0).features, graph.features)
    notice = EMBEDDED.with_name("WORDNET-NOTICE.txt").read_text(encoding="utf-8")
    assert "WordNet 3.0 Copyright 2006 by Princeton University" in notice


def test_the_block_model_is_what_it_says() -> None:
    graph = block_model(seed=0)
    assert graph.features.shape == (800, 600) and graph.classes == 5
    words = graph.features > 0
    assert (words.sum(dim=1) == 14).all()
    within = (graph.label[graph.edges[0]] == graph.label[graph.edges[1]]).sum().item()
    # 5 x 160 x 159 / 2 pairs within, 10 x 160 x 160 between: 1,272 and 640 edges, give or take four deviations.
    assert abs(within - 1272) < 4 * 36 and abs(graph.edges.shape[1] - within - 640) < 4 * 26
    own = torch.stack([words[graph.label == c][:, 120 * c : 120 * (c + 1)].sum() for c in range(5)]).sum().item()
    assert own / words.sum().item() == pytest.approx(2.2 / 6.2, abs=0.02)
    parts = torch.cat([graph.train, graph.validation, graph.test])
    assert parts.unique().numel() == 800 and (len(graph.train), len(graph.validation)) == (50, 50)
    assert not torch.equal(graph.edges, block_model(seed=1).edges)


@pytest.mark.parametrize("name", ["cora", "citeseer"])
def test_the_authors_own_graphs(name: str) -> None:
    path = SHARED / "planetoid" / f"{name}.npz"
    if not path.is_file():
        pytest.skip(f"{path.name} is not there")
    graph = read_graph(path)
    nodes, edges, classes, trained = {"cora": (2708, 5278, 7, 140), "citeseer": (3327, 4552, 6, 120)}[name]
    assert (len(graph.features), graph.edges.shape[1], graph.classes) == (nodes, edges, classes)
    assert (len(graph.train), len(graph.validation), len(graph.test)) == (trained, 500, 1000)


def test_every_method_runs_and_is_drawn() -> None:
    settings = UgclSettings(dim=4, epochs=2, sample=100)
    data = SYSTEM.read(settings, "block", 0)
    models = {method: SYSTEM.train(settings, data, method) for method in SYSTEM.methods}
    scores = {method: SYSTEM.measure(settings, data, method, weights) for method, weights in models.items()}
    assert all(0 <= value <= 1 for values in scores.values() for value in values.values())
    assert scores["sgc"]["test"] > scores["raw"]["test"] + 0.2
    figure = SYSTEM.draw(settings, data, models, "block")
    assert figure is not None
    assert figure.draw(figure.widths[0]).count("<g id=") > 5 and "block model" in figure.caption


def test_rows_are_drawn_by_their_two_largest_directions_and_on_a_line_if_there_is_one() -> None:
    rows = torch.nn.functional.normalize(
        torch.tensor([[3.0, 2, 1], [-3, 2, 1], [3, -2, 0], [-3, -2, 1]]).double(), dim=1
    )
    spread = torch.linalg.svdvals(rows - rows.mean(dim=0))[:2]
    torch.testing.assert_close(principal(rows).norm(dim=0), spread)
    assert principal(torch.tensor([[1.0], [-1], [2]]))[:, 1].tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"scope": 1001}, "--scope is 1001; it must be from 0 to 1000"),
        ({"scope": 101, "form": "binomial"}, "--scope is 101; with form binomial it must be 100 or less"),
        ({"lr": 1e308}, "--lr is .* at most 1000000"),
        ({"sample": 1}, "--sample is 1; it must be 2 or more"),
    ],
)
def test_settings_that_no_machine_can_follow_are_refused(fields: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        UgclSettings(**fields)  # type: ignore[arg-type]
    assert UgclSettings(scope=1000, lr=1e6).scope == 1000


def test_settings_that_are_checked_together_change_together() -> None:
    recorded = UgclSettings(form="binomial")
    for words in (["--scope", "500", "--form", "power"], ["--form", "power", "--scope", "500"]):
        assert read_flags(words, recorded) == UgclSettings(scope=500)
    with pytest.raises(InputError, match="--scope is 500; with form binomial"):
        read_flags(["--scope", "500"], recorded)

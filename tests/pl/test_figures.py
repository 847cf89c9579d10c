"""Static figures draw what they are asked for, or say what they could draw; scanpy's conventions hold for each."""

import inspect
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pytest

import scgraft
from scgraft import pl
from scgraft.errors import BadOption, NoLabels, QueryError
from scgraft.results.expressed import decoded_in_reference, measured_in_query, telling_genes
from scgraft.testing import TinyConfig, tiny_query, write_hub_folder
from scgraft.values.novelty import Dossier

KEY = "cell_type"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    config = TinyConfig(encode_covariates=True, minified="latent_posterior_parameters")
    reference = scgraft.load_reference(write_hub_folder(tmp_path_factory.mktemp("drawn") / "reference", config))
    adata = tiny_query(config, n_cells=50)
    adata.obs["batch"] = adata.obs["batch"].astype(str)
    mapped = scgraft.map_query(reference, adata, batch_key="batch", config=scgraft.FitConfig(max_steps=5))
    group = Dossier(
        0, 9, 20, {"q0": 9}, {"alpha": 1.0}, (("g1", 3.0), ("g2", 2.0)), (("g5", -1.0),), ("query1",), "9 cells."
    )
    novelty = replace(mapped.novelty, dossiers=(group, replace(group, cluster=1, genes=(("g2", 4.0),), lacking=())))
    return reference, adata, replace(mapped, novelty=novelty)


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def drawn(name, made, **options):
    reference, adata, mapped = made
    first = {
        "map": (reference, mapped),
        "composition": (mapped, adata.obs["batch"]),
        "reliability": (mapped.calibration[KEY],),
    }.get(name, (mapped,))
    return getattr(pl, name)(*first, **options)


def test_the_embeddings_of_batches_are_drawn_with_their_names(tmp_path):
    config = TinyConfig(encode_covariates=True, batch_representation="embedding")
    reference = scgraft.load_reference(write_hub_folder(tmp_path / "reference", config))
    assert [text.get_text() for text in pl.conditions(reference).texts] == list(reference.schema.batches)
    assert pl.conditions(reference, return_fig=True, save=tmp_path / "figure.png").axes


@pytest.mark.parametrize("name", [name for name in pl.__all__ if name != "conditions"])
def test_the_conventions_of_scanpy_hold_for_every_figure(name, made, tmp_path, monkeypatch):
    assert {"ax", "show", "save", "return_fig"} <= set(inspect.signature(getattr(pl, name)).parameters)
    figure, ax = plt.subplots()
    assert drawn(name, made, ax=ax) is ax and ax.has_data()
    assert drawn(name, made, ax=ax, return_fig=True) is figure
    drawn(name, made, save=tmp_path / "figure.pdf")
    assert (tmp_path / "figure.pdf").read_bytes().startswith(b"%PDF")
    shown = []
    monkeypatch.setattr(plt, "show", lambda: shown.append(True))
    assert drawn(name, made, show=True) is None and shown == [True]


@pytest.mark.parametrize("color", ["label", "batch", f"{KEY}_call", "cluster", "novel"])
def test_the_map_is_coloured_by_names(made, color):
    reference, adata, mapped = made
    ax = pl.map(reference, mapped, color=color, adata=adata)
    frame = mapped.to_frame()
    values = mapped.labels[KEY].believed if color == "label" else frame[color] if color in frame else adata.obs[color]
    assert {text.get_text() for text in ax.get_legend().get_texts()} == set(np.asarray(values).astype(str))
    assert sum(len(points.get_offsets()) for points in ax.collections) == 60 + 50


@pytest.mark.parametrize("color", ["probability", "novelty", "map_distance", f"{KEY}_distance"])
def test_the_map_is_coloured_by_numbers(made, color):
    reference, _, mapped = made
    points = pl.map(reference, mapped, color=color).collections[1]
    own = {"probability": mapped.labels[KEY].probability, "novelty": mapped.novelty.strength}
    assert np.allclose(points.get_array(), own.get(color, mapped.to_frame().get(color)))


def test_a_gene_is_measured_in_the_query_and_decoded_in_the_reference(made):
    reference, adata, mapped = made
    gene = str(reference.schema.genes[3])
    behind, before = pl.map(reference, mapped, color=gene, adata=adata).collections
    counts = adata[:, reference.schema.genes].X
    counts = np.asarray(counts.todense() if hasattr(counts, "todense") else counts)
    assert np.allclose(before.get_array(), np.log1p(counts[:, 3] / counts.sum(axis=1) * 1e4), rtol=1e-5)
    cells = scgraft.reference_cells(reference)
    decoded = scgraft.normalized_expression(reference, cells, genes=[gene], library_size=1e4)[:, 0]
    assert np.allclose(behind.get_array(), np.log1p(decoded), rtol=1e-5)
    shuffled = measured_in_query(reference, mapped, adata[::-1].copy(), [gene])
    assert np.allclose(shuffled[:, 0], before.get_array())
    assert decoded_in_reference(reference, [gene], np.array([5, 2])).shape == (2, 1)


def test_what_cannot_colour_the_map_is_refused_with_what_can(made):
    reference, adata, mapped = made
    with pytest.raises(BadOption, match="'novelty', a column of mapped.to_frame"):
        pl.map(reference, mapped, color="batch")  # without the query there is no such column
    with pytest.raises(BadOption, match="adata="):
        pl.map(reference, mapped, color=str(reference.schema.genes[0]))
    adata.obs["each"] = [f"{i}!" for i in range(len(adata))]
    assert pl.map(reference, mapped, color="each", adata=adata)
    with pytest.raises(QueryError, match="of the mapping are not in this AnnData"):
        pl.map(reference, mapped, color=str(reference.schema.genes[0]), adata=adata[:10].copy())


def test_every_option_is_checked(made):
    _, adata, mapped = made
    with pytest.raises(BadOption, match="value is one of"):
        pl.qc(mapped, value="cluster")
    for figure in (pl.composition, pl.qc):
        with pytest.raises(QueryError, match="give one each"):
            figure(mapped, adata.obs["batch"][:3])
    with pytest.raises(NoLabels):
        pl.flow(mapped, labels="absent")
    for figure in (pl.novelty, pl.flow, pl.dossiers):
        with pytest.raises(NoLabels, match="without a calibration"):
            figure(replace(mapped, novelty=None))
    with pytest.raises(NoLabels, match="no dossier"):
        pl.dossiers(replace(mapped, novelty=replace(mapped.novelty, dossiers=())))


def test_the_heat_map_shows_the_genes_of_each_group(made):
    ax = pl.dossiers(made[2])
    assert [text.get_text() for text in ax.get_xticklabels()] == ["g1", "g2", "g5"]
    shown = np.ma.filled(ax.images[0].get_array().astype(float), np.nan)
    assert np.allclose(shown, [[3, 2, -1], [np.nan, 4, np.nan]], equal_nan=True)


def test_telling_genes_begin_with_the_unknown_groups_and_are_of_all_labels(made):
    reference, _, mapped = made
    few = telling_genes(reference, mapped, most=6)
    assert few[:2] == ["g1", "g2"] and len(set(few)) == 6 and set(few[2:]) <= set(reference.schema.genes)

"""scvi-tools' side of the speed benchmarks, run by its own interpreter: ``python speed_scvi.py TASK ARGUMENTS-AS-JSON``.

Each task prints one line of JSON. The only thread is the main one; times are CPU seconds of this process.
"""

import json
import resource
import sys
import time
import warnings
from pathlib import Path

import numpy as np

warnings.filterwarnings("ignore")
KINDS = {
    "seed1-like": {
        "n_layers": 3, "n_latent": 20, "gene_likelihood": "nb", "encode_covariates": True,
        "use_layer_norm": "both", "use_batch_norm": "none",
    },
    "defaults": {},
}  # fmt: skip
TRAINER = {"accelerator": "cpu", "devices": 1, "enable_progress_bar": False, "logger": False,
           "enable_checkpointing": False}  # fmt: skip
KEPT_EPOCHS = (1, 2, 5, 10, 20, 30, 40, 50, 60, 80, 100)
SCORED = 3000  # cells of the reference that accuracy and mixing are read against


def load(path):
    import anndata

    return anndata.read_h5ad(path)


def train(kind, cells, out, epochs, seed=0):
    """Train a reference and save it as the hub has it: minified, with the posterior of its cells."""
    import scvi

    scvi.settings.seed = seed
    adata = load(cells)
    scvi.model.SCVI.setup_anndata(adata, batch_key="batch", labels_key="cell_type")
    model = scvi.model.SCVI(adata, **KINDS[kind])
    model.train(max_epochs=epochs, **TRAINER)
    mean, variance = model.get_latent_representation(return_dist=True)
    adata.obsm["X_latent_qzm"], adata.obsm["X_latent_qzv"] = mean, variance
    model.minify_adata()
    model.save(out, overwrite=True, save_anndata=True)
    metadata = {"scvi_version": scvi.__version__, "anndata_version": "0.12.0", "model_cls_name": "SCVI",
                "training_data_url": None, "model_parent_module": "scvi.model"}  # fmt: skip
    (Path(out) / "_scvi_required_metadata.json").write_text(json.dumps(metadata))
    return {"spread_of_latent": [round(float(s), 2) for s in np.sort(mean.std(0))[::-1]]}


def query_model(reference, cells):
    """scvi-tools' surgery: the reference extended by the batches of the cells, untrained."""
    import scvi

    adata = load(cells) if not hasattr(cells, "obs") else cells
    family = json.loads((Path(reference) / "_scvi_required_metadata.json").read_text())["model_cls_name"]
    cls = getattr(scvi.model, family)
    cls.prepare_query_anndata(adata, reference)
    if family == "SCANVI":  # it refuses a query with labels that the reference lacks
        import torch

        registry = torch.load(Path(reference) / "model.pt", weights_only=False, map_location="cpu")["attr_dict"][
            "registry_"
        ]
        setup = registry["setup_args"]
        adata.obs[setup["labels_key"]] = setup["unlabeled_category"]
    return cls.load_query_data(adata, reference)


def fit(model, epochs, on_epoch=None):
    """The practice of scArches: 100 epochs of Adam at 1e-3 without weight decay."""
    from lightning.pytorch.callbacks import Callback

    class Watch(Callback):
        def on_train_epoch_end(self, trainer, module):
            if on_epoch is not None:
                on_epoch(trainer.current_epoch + 1)

    model.train(max_epochs=epochs, plan_kwargs={"weight_decay": 0.0}, callbacks=[Watch()], **TRAINER)


def changed(model, start):
    """What the training changed, so that it can be judged later."""
    return {k: v.clone() for k, v in model.module.state_dict().items() if not v.equal(start[k])}


def judge(model, reference, repeats=4):
    """Held-out cells: scvi-tools' own -ELBO and reconstruction error in nats per cell; accuracy and mixing of its latent."""
    import anndata
    import real_pairs
    import torch

    cells = model.adata
    model.is_trained = True  # it asks before it embeds
    elbo, reconstruction = [], []
    for seed in range(repeats):
        torch.manual_seed(seed)
        elbo.append(float(model.get_elbo(cells, batch_size=1000)))
        torch.manual_seed(seed)
        value = model.get_reconstruction_error(cells, batch_size=1000)
        value = value["reconstruction_loss"] if isinstance(value, dict) else value
        reconstruction.append(abs(float(value)))
    latent, truth = model.get_latent_representation(), cells.obs["cell_type"].to_numpy().astype(str)
    stored = anndata.read_h5ad(Path(reference) / "adata.h5ad", backed="r")
    points = np.asarray(stored.obsm["X_latent_qzm"])[:SCORED]
    labels = stored.obs["cell_type"].to_numpy().astype(str)[:SCORED]
    accuracy, _, mixing = real_pairs.scores(points, labels, latent, truth)
    return {"elbo": abs(float(np.mean(elbo))), "reconstruction": float(np.mean(reconstruction)),
            "accuracy": accuracy, "mixing": mixing}  # fmt: skip


def practice(reference, cells, held_out, epochs=100, seed=0):
    """Surgery and training; the state after some epochs is judged afterwards, outside the time."""
    import scvi

    scvi.settings.seed = seed
    began = time.process_time()
    model = query_model(reference, cells)
    start = {k: v.clone() for k, v in model.module.state_dict().items()}
    states, spent = {}, {"paused": 0.0}

    def keep(epoch):
        now = time.process_time()
        if epoch in KEPT_EPOCHS:
            states[epoch] = (now - began - spent["paused"], changed(model, start))
        spent["paused"] += time.process_time() - now

    wall = time.perf_counter()
    fit(model, epochs, keep)
    wall = time.perf_counter() - wall
    total = time.process_time() - began - spent["paused"]
    judged = query_model(reference, held_out)
    curve = []
    for epoch, (seconds, state) in states.items():
        judged.module.load_state_dict({**start, **state})
        curve.append({"epoch": epoch, "cpu": seconds} | judge(judged, reference, 2))
    frozen = [k for k in states[max(states)][1] if "px_decoder" in k and (".1.weight" in k or ".1.bias" in k)]
    result = {"cpu": total, "wall": wall, "memory_mb": memory(), "curve": curve}
    if frozen:  # how much of the gain came from training the reference's own decoder batch norm
        kept = {k: v for k, v in states[max(states)][1].items() if k not in frozen}
        judged.module.load_state_dict({**start, **kept})
        result["without_batch_norm"] = judge(judged, reference)
    return result


def judge_columns(reference, held_out, columns):
    """Write new columns into scvi-tools' module and let it judge them; `columns` maps a name to an npz file."""
    import torch

    model = query_model(reference, held_out)
    mapping = list(model.adata_manager.get_state_registry("batch").categorical_mapping)
    result = {}
    for name, file in columns.items():
        state = model.module.state_dict()
        with np.load(file, allow_pickle=False) as data:
            levels = [str(level) for level in data["levels"]]
            for key in data.files:
                if key == "levels":
                    continue
                tensor, new = state[key].clone(), torch.tensor(data[key])
                first = tensor.shape[1] - len(mapping)
                for i, level in enumerate(levels):
                    tensor[:, first + mapping.index(level)] = new[:, i]
                state[key] = tensor
        model.module.load_state_dict(state)
        result[name] = judge(model, reference)
    return result


def embed(reference, cells, out):
    """Cells per CPU second of get_latent_representation, as it stands and with its batch_size=1024."""
    model = query_model(reference, cells)
    model.is_trained = True  # it asks, and the columns as surgery made them do as well
    result = {}
    for name, size in (("default", None), ("batch_size=1024", 1024)):
        began = time.process_time()
        latent = model.get_latent_representation(batch_size=size)
        result[name] = len(latent) / (time.process_time() - began)
    levels, columns = query_columns(model, reference)
    np.savez(out, levels=levels, **columns)
    np.save(Path(out).with_suffix(".npy"), latent)
    return result


def query_columns(model, reference):
    """Names of the new batches and their columns as surgery made them (random), so that both sides embed the same."""
    import torch

    base = torch.load(Path(reference) / "model.pt", weights_only=False)["model_state_dict"]
    state = model.module.state_dict()
    grown = [k for k in base if torch.is_tensor(base[k]) and base[k].shape != state[k].shape]
    mapping = list(model.adata_manager.get_state_registry("batch").categorical_mapping)
    n_new = state[grown[0]].shape[1] - base[grown[0]].shape[1]
    return np.array(mapping[-n_new:]).astype(str), {k: state[k][:, -n_new:].numpy() for k in grown}


def command(reference, cells, out, epochs):
    """The whole job of scvi-tools and scArches, with a few epochs of training instead of 100."""
    import anndata
    import pandas as pd

    adata = load(cells)
    minified = anndata.read_h5ad(Path(reference) / "adata.h5ad")
    model = query_model(reference, adata)
    began = time.process_time()
    per_epoch = []
    fit(model, epochs, lambda epoch: per_epoch.append(time.process_time()))
    training = time.process_time() - began
    latent = model.get_latent_representation()
    labels, uncertainty = weighted_knn(minified.obsm["X_latent_qzm"], minified.obs["cell_type"].to_numpy(), latent)
    pd.DataFrame({"label": labels, "uncertainty": uncertainty}, index=adata.obs_names).to_csv(out)
    steady = float(np.median(np.diff(per_epoch))) if len(per_epoch) > 2 else training / epochs
    total = time.process_time()
    return {"cpu": total, "training": training, "per_epoch": steady, "memory_mb": memory(),
            "extrapolated_100": total - training + 100 * steady}  # fmt: skip


def weighted_knn(points, labels, queries, k=50, block=1000):
    """Weighted nearest neighbours as scArches publishes them (Lotfollahi et al. 2022): Gaussian weights, brute force."""
    from sklearn.neighbors import NearestNeighbors

    search = NearestNeighbors(n_neighbors=k, algorithm="brute").fit(points)
    names, codes = np.unique(labels.astype(str), return_inverse=True)
    found, doubt = [], []
    for start in range(0, len(queries), block):
        distance, index = search.kneighbors(queries[start : start + block])
        spread = distance.std(axis=1, keepdims=True)
        weight = np.exp(-distance / (2 / spread) ** 2)
        weight /= weight.sum(axis=1, keepdims=True)
        vote = np.zeros((len(index), len(names)))
        np.add.at(vote, (np.arange(len(index))[:, None], codes[index]), weight)
        found.append(names[vote.argmax(axis=1)])
        doubt.append(1 - vote.max(axis=1))
    return np.concatenate(found), np.concatenate(doubt)


def memory():
    """Peak resident memory of this process in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def latents(reference, cells, epochs, seed, out):
    """Latents of a real query after scvi-tools' practice, and the CPU seconds of its training."""
    import scvi

    scvi.settings.seed = seed
    model = query_model(reference, cells)
    began = time.process_time()
    if epochs:
        fit(model, epochs)
    cpu = time.process_time() - began
    np.save(out, model.get_latent_representation())
    return {"cpu": cpu}


TASKS = {
    "train": train, "practice": practice, "judge": judge_columns, "embed": embed, "command": command,
    "latents": latents,
}  # fmt: skip

if __name__ == "__main__":
    import torch

    torch.set_num_threads(1)
    print(json.dumps(TASKS[sys.argv[1]](**json.loads(sys.argv[2]))))

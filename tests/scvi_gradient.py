"""Runs with an interpreter that has scvi-tools: the gradient of its own loss, in double precision and under given draws.

``python scvi_gradient.py FOLDER...``: each folder holds ``export/``, ``counts.h5ad`` and ``draws.npz``; ``gradient.npz`` is written.
"""

import json
import sys
import warnings
from pathlib import Path

import anndata
import numpy as np

warnings.filterwarnings("ignore")


def main(folder: Path) -> None:
    import scvi
    import torch

    name = json.loads((folder / "export/_scvi_required_metadata.json").read_text())["model_cls_name"]
    draws = np.load(folder / "draws.npz")
    adata = anndata.read_h5ad(folder / "counts.h5ad")
    model = getattr(scvi.model, name).load(str(folder / "export"), adata=adata)
    module = model.module.double().eval()
    tensors = next(iter(model._make_data_loader(adata=adata, batch_size=adata.n_obs)))
    tensors = {k: v.double() if v.is_floating_point() else v for k, v in tensors.items()}
    noise = torch.from_numpy(draws["noise"])
    n, width = len(noise), module.n_latent
    first = width + int(not module.use_observed_lib_size)

    def rsample(normal, sample_shape=()):
        """The draws for the latent, for the library size, and for SCANVI's second latent of every class, in this order."""
        if len(normal.loc) > n:
            own = noise[:, first:].reshape(n, -1, width).transpose(0, 1).reshape(-1, width)
        else:
            own = noise[:, :width] if normal.loc.shape[-1] == width else noise[:, width:first]
        return normal.loc + normal.scale * own

    linear = torch.nn.functional.linear
    # scvi-tools makes the one-hot batches of a dispersion in single precision.
    torch.nn.functional.linear = lambda x, weight, bias=None: linear(x.to(weight.dtype), weight, bias)
    torch.distributions.Normal.rsample = rsample
    found = {}
    for i, kl_weight in enumerate(draws["kl_weights"]):
        module.zero_grad()
        for parameter in module.parameters():
            parameter.requires_grad_(True)
        *_, loss = module(tensors, loss_kwargs={"kl_weight": float(kl_weight)})
        loss.loss.backward()
        found[f"{i}:loss"] = np.array(float(loss.loss))
        for key, parameter in module.named_parameters():
            if parameter.grad is not None:
                found[f"{i}:{key}"] = parameter.grad.numpy()
    np.savez(folder / "gradient.npz", **found)


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        main(Path(argument))

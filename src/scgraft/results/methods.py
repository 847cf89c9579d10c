"""What a paper says about a mapping: a paragraph, and its citations as BibTeX."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from scgraft.model.families import family_of

PAPERS = {
    "lotfollahi2022": (
        "article", "Lotfollahi, Mohammad and Naghipourfar, Mohsen and Luecken, Malte D. and others",
        "Mapping single-cell data to reference atlases by transfer learning",
        "Nature Biotechnology", "2022", "10.1038/s41587-021-01001-7",
    ),
    "lopez2018": (
        "article", "Lopez, Romain and Regier, Jeffrey and Cole, Michael B. and Jordan, Michael I. and Yosef, Nir",
        "Deep generative modeling for single-cell transcriptomics",
        "Nature Methods", "2018", "10.1038/s41592-018-0229-2",
    ),
    "xu2021": (
        "article", "Xu, Chenling and Lopez, Romain and Mehlman, Edouard and Regier, Jeffrey and Jordan, Michael I. and Yosef, Nir",
        "Probabilistic harmonization and annotation of single-cell transcriptomics data with deep generative models",
        "Molecular Systems Biology", "2021", "10.15252/msb.20209620",
    ),
    "gayoso2021": (
        "article", "Gayoso, Adam and Steier, Zo{\\\"e} and Lopez, Romain and Regier, Jeffrey and Nazor, Kristopher L. and "
        "Streets, Aaron and Yosef, Nir",
        "Joint probabilistic modeling of single-cell multi-omic data with {totalVI}",
        "Nature Methods", "2021", "10.1038/s41592-020-01050-x",
    ),
    "guo2017": (
        "inproceedings", "Guo, Chuan and Pleiss, Geoff and Sun, Yu and Weinberger, Kilian Q.",
        "On calibration of modern neural networks",
        "Proceedings of the 34th International Conference on Machine Learning", "2017", "",
    ),
    "sadinle2019": (
        "article", "Sadinle, Mauricio and Lei, Jing and Wasserman, Larry",
        "Least ambiguous set-valued classifiers with bounded error levels",
        "Journal of the American Statistical Association", "2019", "10.1080/01621459.2017.1395341",
    ),
    "efron2004": (
        "article", "Efron, Bradley",
        "Large-scale simultaneous hypothesis testing: the choice of a null hypothesis",
        "Journal of the American Statistical Association", "2004", "10.1198/016214504000000089",
    ),
    "blondel2008": (
        "article", "Blondel, Vincent D. and Guillaume, Jean-Loup and Lambiotte, Renaud and Lefebvre, Etienne",
        "Fast unfolding of communities in large networks",
        "Journal of Statistical Mechanics: Theory and Experiment", "2008", "10.1088/1742-5468/2008/10/P10008",
    ),
}  # fmt: skip


def reference_name(base: dict[str, Any]) -> str:
    """What a reader calls the reference: its repository, or the name of its folder, not where that lies."""
    return str(base["repo"]) if base["revision"] != "local" else Path(base["repo"]).name or str(base["repo"])


def reference_source(base: dict[str, Any]) -> str:
    """Where the reference of that name is from: a commit of the hub, or a folder."""
    return f"commit {base['revision']}" if base["revision"] != "local" else "a local folder"


def cite(key: str) -> str:
    """A paper as a paragraph names it."""
    kind, authors, _, journal, year, doi = PAPERS[key]
    first = authors.split(",")[0]
    return f"{first} et al., {journal} {year}" + (f", doi:{doi}" if doi else "") if " and " in authors else (
        f"{first}, {journal} {year}" + (f", doi:{doi}" if doi else "")
    )  # fmt: skip


def bibtex(summary: dict[str, Any]) -> str:
    """The papers that a mapping rests on, as BibTeX; what a family cites that is not listed here, by its DOI."""
    keys = ["lotfollahi2022"] if summary["record"]["trained"] else []
    keys += ["guo2017", "sadinle2019", "efron2004", "blondel2008"] if summary.get("calibration") else []
    entries = [_entry(key) for key in keys]
    by_doi = {paper[-1]: key for key, paper in PAPERS.items() if paper[-1]}
    for number, citation in enumerate(family_of(summary["base"]["family"]).citations, 1):
        found = re.search(r"doi:(10\.[^\s)]+)", citation)
        doi = found[1] if found else ""
        other = f"@misc{{model{number},\n  note = {{{citation}}}" + (f",\n  doi = {{{doi}}}" if doi else "") + "\n}"
        entries.append(_entry(by_doi[doi]) if doi in by_doi else other)
    return "\n\n".join(entries)


def _entry(key: str) -> str:
    kind, authors, title, journal, year, doi = PAPERS[key]
    where = "journal" if kind == "article" else "booktitle"
    fields = {"author": authors, "title": title, where: journal, "year": year} | ({"doi": doi} if doi else {})
    lines = ",\n".join(f"  {name} = {{{value}}}" for name, value in fields.items())
    return f"@{kind}{{{key},\n{lines}\n}}"


def methods(summary: dict[str, Any]) -> str:
    """A paragraph for a paper: what was mapped onto what, what was trained, what the labels rest on, versions, citations."""
    parts = [_surgery(summary), *([_labels(summary)] if summary.get("calibration") else [])]
    base, versions = summary["base"], summary["record"]["versions"]
    cited = "; ".join(family_of(base["family"]).citations)
    software = ", ".join(f"{name} {version}" for name, version in versions.items())
    return " ".join([*parts, f"The model is described by {cited}. Software: {software}."])


def _surgery(summary: dict[str, Any]) -> str:
    base, alignment, record = summary["base"], summary["alignment"], summary["record"]
    said = (
        f"{alignment['n_cells']:,} cells were mapped onto the {base['family']} reference {reference_name(base)!r} ({reference_source(base)}, "
        f"sha256 of the weights {base['sha256'][:16]}) with scgraft {summary['scgraft']}. Raw counts were "
        f"taken from {alignment['counts_from']}; {alignment['n_found']:,} of {alignment['n_genes']:,} genes of the reference were "
        "found, and missing genes were set to zero. "
    )
    if not record["trained"]:
        return f"{said}No training took place: {record['reason']}"
    return said + (
        f"Architectural surgery ({cite('lotfollahi2022')}) trained {record['n_parameters']:,} new numbers for "
        f"{len(summary['batches'])} batches in {record['steps']} steps (objective {record['objective']}, seed "
        f"{record['config']['seed']}); all weights of the reference stayed as they are."
    )


def _votes(summary: dict[str, Any], source: str) -> str:
    """What the labels were voted by; `source` are the cells that the classifier on genes learnt from."""
    if chosen := summary["summary"].get("label_method"):
        said = str(chosen["sentence"]).split(";")[0]
        return f"Labels are votes of the label method {chosen['name']!r} ({said})"
    return (
        "Labels are the product of a weighted nearest-neighbour vote in the latent and of a multinomial logistic regression "
        f"trained on {source}"
    )


def _labels(summary: dict[str, Any]) -> str:
    made = summary["calibration"].values()
    learnt = sorted({value["learnt_from"] for value in made if value.get("learnt_from")})
    source = f"cells of the reference ({'; '.join(learnt)})" if learnt else "cells of the reference"
    weights = [
        f"{name} {weight:g}" for value in made for name, weight in value.get("class_weights", {}).items() if weight != 1
    ]
    weighed = f"The votes for some classes were weighted ({', '.join(weights)}). " if weights else ""
    return (
        f"{_votes(summary, source)}, with a temperature ({cite('guo2017')}) and class-conditional split-conformal prediction sets "
        f"({cite('sadinle2019')}) from held-out reference batches. "
        + "".join(value["guarantee"].rstrip(".") + ". " for value in summary["calibration"].values())
        + weighed
        + "A cell was called novel if the errors of the model that it shares with similar cells lie in few genes, above what is "
        "expected (their skewness, times the distance to the reference in the latent before the fit and the fourth root of the mean "
        "squared error, each over the query's first quartile), beyond a fixed limit, what held-out cells have, and, within bounds, twice the "
        f"query's own first quartile (an empirical null; {cite('efron2004')}). Clusters of the query are Louvain communities "
        f"({cite('blondel2008')})."
    )

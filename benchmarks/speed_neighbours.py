"""One side of the neighbour benchmark: ``python speed_neighbours.py faiss|scgraft`` prints one line of JSON."""

import json
import sys
import time

import numpy as np

rng = np.random.default_rng(0)
centres = rng.normal(0, 3, (30, 20))
points = (centres[rng.integers(0, 30, 100_000)] + rng.normal(0, 1, (100_000, 20))).astype(np.float32)
queries = (centres[rng.integers(0, 30, 20_000)] + rng.normal(0, 1, (20_000, 20))).astype(np.float32)

if sys.argv[1] == "faiss":
    import faiss

    faiss.omp_set_num_threads(1)
    began, wall = time.process_time(), time.perf_counter()
    index = faiss.IndexFlatL2(20)
    index.add(points)
    square, _ = index.search(queries, 15)
    distances = np.sqrt(np.maximum(square, 0))
else:
    import torch

    from scgraft.numerics.neighbors import nearest

    torch.set_num_threads(1)
    began, wall = time.process_time(), time.perf_counter()
    distances = nearest(points, queries, k=15).distances
cpu, wall = time.process_time() - began, time.perf_counter() - wall
print(json.dumps({"cpu": cpu, "wall": wall, "checksum": f"{float(distances.sum(dtype=np.float64)):.0f}"}))

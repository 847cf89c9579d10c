"""Preloaded (more than once) by the workers of the tests: small samples and parts, each of which takes a while."""

import time

from scgraft.mapping import freeze, map, stream
from scgraft.mapping.freeze import map_cells

freeze.CELLS = 20
map.SAMPLE = stream.SAMPLE = 60


def slow(*args, **kwargs):
    time.sleep(0.1)
    return map_cells(*args, **kwargs)


stream.map_cells = slow

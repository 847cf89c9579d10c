"""A cluster of one worker in a process that can be killed: prints its address, and lives until then."""

import sys
import time

from distributed import LocalCluster

if __name__ == "__main__":
    options = {"dashboard_address": None, "threads_per_worker": 1, "preload": [sys.argv[1]]}
    with LocalCluster(n_workers=1, **options) as cluster:
        print(cluster.scheduler_address, flush=True)
        time.sleep(600)

"""Numbers that know no cell: neighbours, clusters, conformal prediction, ranking, matrix products."""

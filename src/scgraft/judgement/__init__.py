"""Was the mapping good? Measures with their null, and the verdict."""

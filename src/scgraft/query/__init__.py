"""A query: read a file, find its counts, match its genes, bring it into the reference's form."""

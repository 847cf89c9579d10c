"""A graft: start, fit, match, embed, merge, store."""

"""Labels: votes, classifier, transfer, explanation."""

"""What a user gets: the annotated query, the output folder, the page."""

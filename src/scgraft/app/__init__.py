"""The app: a web page for people who do not code. :mod:`visit` is what it does, :mod:`page` what is seen."""

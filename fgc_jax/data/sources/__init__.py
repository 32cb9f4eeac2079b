"""Where data sets come from: a module for each layout, each with `load(root, **options)`."""

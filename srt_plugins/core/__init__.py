"""The framework-free core: views, translation, alignment, statistics, engine, layer capture."""

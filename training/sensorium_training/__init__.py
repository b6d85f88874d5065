"""Training and evaluation of the default bundle, `playroom`, on a procedural world."""

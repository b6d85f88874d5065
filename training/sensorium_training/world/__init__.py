"""The playroom: a procedural world of objects, its pictures and its language.

Everything is made from seeds; there are no data files. A new modality (sound, motion) adds a module
that renders the same `Scene`s and another that asks about them.
"""

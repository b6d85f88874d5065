"""Engines that come while the server serves: found or built, swapped in, and taken back.

A repository is served from a copy made of links, and Triton is ready on the portable models.
Engines are looked for in a cache, or built into it by `sensorium compile`, a child process of low
priority; each becomes the next version of its stage by explicit model control.
"""

"""What the benchmarks share: bundles to serve, load, baselines, and the arithmetic on them.

In the order in which a measurement meets them:

- `inputs`, `sources`, `bundles`: what is sent, where it comes from, and what is served.
- `repository`: what the configs of a bundle say.
- `job`: one measurement in a process of its own, described by values that fit in JSON.
- `load`: such a process that sends requests; `raw`: one that runs the graphs without a server.
- `window`: throughput and percentiles from the begin and the end of each call.
- `probe`: the server's processor time, memory and own statistics.
- `rounds`: everything in turn, again and again.
- `summary`, `report`, `plot`: medians and ratios, as a table and as a picture.
- `machine`: where it was measured, and with which versions.
- `subject`, `engine_way`, `engine_way_gpu`, `roofline`, `engine_report`: a network by every engine.
"""

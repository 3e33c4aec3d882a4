"""The detectors, one per file. Pure; what they share is in `protocols`.

E-detectors, whose promise is error over patience: `bernoulli`, `gaussian`, `bounded`,
`multinomial`, `heading`, `vector`; what they have in common is in `mixture`. Detectors of the
calibrated channel: `seed`, `stepd`, and River's behind `river_backed`; `calibrated` makes them by
name.
"""

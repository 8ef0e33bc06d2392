"""One module per contestant, run in a process of its own: `python -m contestants.NAME`.

Each does the whole job from nothing: import, read the images batch by batch, calibrate, write.
"""

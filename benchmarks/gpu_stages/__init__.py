"""The stages of gpu.py, a file each: ``run(stage)`` notes what it finds, and returns why where it was skipped."""

"""The machine: what it can do, which kernels run, what is drawn from a seed."""

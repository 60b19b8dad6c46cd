"""``python -m dpstune`` and ``accelerate launch -m dpstune`` run the same command line as ``dpstune``."""

from dpstune.cli import main

if __name__ == "__main__":
    main()

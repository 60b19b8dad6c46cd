"""What every room may use: the hub, signals, progress, text files."""

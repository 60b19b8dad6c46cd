"""One file a command: its flags, the one function it calls, what it prints."""

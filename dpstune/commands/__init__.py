"""The commands, one file each: its flags, the one function it calls, what it prints."""

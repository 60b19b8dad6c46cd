"""The methods inside other libraries' training loops."""

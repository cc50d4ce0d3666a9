"""The experiments behind the commands: what each one compares, how it is run, and its pictures and tables."""

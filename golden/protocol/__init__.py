"""The diagnostic protocol: rules that stop a run whose learning signal has died or blown up, and traces of logged runs."""

"""Who serves and who calls in ``benchmarks/rpc.py``."""

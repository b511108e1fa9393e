"""The benchmark suite: xpnet beside its peers, in one run. Start with benchmarks/README.md."""

"""The benchmarks behind tools/bench: what is measured, beside whom, and how it is reported."""

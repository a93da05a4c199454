"""PostgreSQL and AWS on this machine, for `make migrate`, the tests and the benchmarks."""

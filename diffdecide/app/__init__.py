"""The roof: agent, command line, benchmarks and pictures; puts the packages together."""

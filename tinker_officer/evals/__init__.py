"""Three layers of evaluation: held-out NLL, public benchmarks, and the user's own cases."""

"""The project and its peers on the same work, in one run. The README says how to run and to read it."""

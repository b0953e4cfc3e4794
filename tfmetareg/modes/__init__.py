"""One module for each mode: from the configuration to a stage of the work directory."""

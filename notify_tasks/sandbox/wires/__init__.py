"""The wires: one module for each provider whose API the sandbox speaks, found by name; `wire` says what one is."""

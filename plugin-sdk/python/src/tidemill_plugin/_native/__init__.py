"""What stands in for a component's bindings in native tests: the contract's types, and a host in memory."""

"""One function for each action of the contract."""

"""`kvsync plan`: from a trace to a decision, by replaying it offline under many configurations."""
